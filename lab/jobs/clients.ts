import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { check } from '../guest/check.ts';
import { assertNatively, imprintNatively, restoreNatively, runV1Client, saveNatively } from '../guest/client.ts';
import { Mtty } from '../guest/mtty.ts';

/** Programs of ours that are no VMM move a device's state, in v1 under run and in v2 on the device itself. */

const MAGIC = '4e2c3e8c89099d7e';

await check(
  'a v1 program under run saves the bytes that a v2 program does, and each restores what the other saved',
  async (bed) => {
    const [a, b, c] = [Mtty.create(), Mtty.create(), Mtty.create()];
    await imprintNatively(a, 0x53);
    const native = saveNatively(a);
    assert.deepEqual([native.length, native.toString('hex', 0, 8)], [96, MAGIC]);
    const file = bed.path('state');
    await runV1Client(bed, 'saver', ['save', file], a);
    assert.deepEqual(readFileSync(file), native);

    restoreNatively(b, readFileSync(file));
    await assertNatively(b, 0x53);

    await imprintNatively(a, 0xb8);
    writeFileSync(file, saveNatively(a));
    await runV1Client(bed, 'restorer', ['restore', file], c);
    assert.deepEqual(saveNatively(c), readFileSync(file));
    await assertNatively(c, 0xb8); // last: it reads the FIFO, which is then the same in other places
  },
);
