import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { CLI } from '../../test/real/cli.ts';
import type { TestBed } from '../../test/real/test-bed.ts';
import { within } from '../../test/real/wait.ts';
import { check } from '../guest/check.ts';
import {
  assertNatively,
  imprintNatively,
  pathOf,
  restoreNatively,
  runV1Client,
  saveNatively,
} from '../guest/client.ts';
import { Mtty, type MttyType } from '../guest/mtty.ts';
import { RawDevice } from '../guest/raw-device.ts';

/** Programs that are no VMM move a device's state: of ours, in v1 and in v2, and the commands. */

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

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(bed: TestBed, ...args: readonly string[]): Promise<Outcome> {
  const child = bed.spawn([process.execPath, CLI, ...args]);
  const { code } = await within(child.exited, 60_000, () => `${args.join(' ')} to end: ${child.stderr}`);
  return { code, stdout: child.stdout, stderr: child.stderr };
}

const deviceOf = (mtty: Mtty): string => `vfio:${pathOf(mtty)}`;

for (const [type, ports] of [
  ['mtty-1', 1],
  ['mtty-2', 2],
] as const satisfies readonly (readonly [MttyType, number])[]) {
  await check(`probe tells what an ${type} is, and does not disturb it`, async (bed) => {
    const mtty = Mtty.create(type);
    await imprintNatively(mtty, 0x27);
    const { code, stdout, stderr } = await run(bed, 'probe', deviceOf(mtty), '--json');
    assert.deepEqual([code, stderr], [0, '']);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    const { protocol, driver, flags, state, stale, dataSize, regions } = found;
    assert.deepEqual(
      { protocol, driver, flags, state, stale, dataSize },
      {
        protocol: 'v2',
        driver: 'mtty',
        flags: ['STOP_COPY', 'P2P', 'PRE_COPY'],
        state: 'RUNNING',
        stale: false,
        dataSize: 24 + 36 * ports,
      },
    );
    const sizes = (regions as { index: number; size: number }[]).map(({ index, size }) => [index, size]);
    assert.deepEqual(sizes, [...Array.from({ length: ports }, (_, port) => [port, 8]), [7, 0xff]]);
    await assertNatively(mtty, 0x27);
  });
}

await check('save and restore move a state from one mtty to another', async (bed) => {
  const [from, to] = [Mtty.create(), Mtty.create()];
  await imprintNatively(from, 0xe1);
  const file = bed.path('mtty.state');
  const saved = await run(bed, 'save', deviceOf(from), file);
  assert.equal(saved.code, 0, saved.stderr);
  assert.ok(readFileSync(file).includes(Buffer.from(MAGIC, 'hex')));
  await assertNatively(from, 0xe1);
  const restored = await run(bed, 'restore', deviceOf(to), file);
  assert.equal(restored.code, 0, restored.stderr);
  await assertNatively(to, 0xe1);
  for (const mtty of [from, to]) {
    using device = new RawDevice(mtty);
    assert.equal(device.state(), 'RUNNING');
  }
});

await check('restore refuses a device of another type, and with --force its driver does', async (bed) => {
  const [from, to] = [Mtty.create('mtty-2'), Mtty.create('mtty-1')];
  await imprintNatively(to, 0x4d);
  const file = bed.path('mtty.state');
  assert.equal((await run(bed, 'save', deviceOf(from), file)).code, 0);
  const refused = await run(bed, 'restore', deviceOf(to), file);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /ERR_OTHER_DEVICE/);
  const forced = await run(bed, 'restore', '--force', deviceOf(to), file);
  assert.equal(forced.code, 1);
  assert.match(forced.stderr, /EFAULT|ENOMEM/);
  await assertNatively(to, 0x4d);
  using device = new RawDevice(to);
  assert.equal(device.state(), 'RUNNING');
});

await check('save says in one line that a device is in use', async (bed) => {
  const mtty = Mtty.create();
  using device = new RawDevice(mtty);
  const { code, stderr } = await run(bed, 'save', deviceOf(mtty), bed.path('mtty.state'));
  assert.equal(code, 1);
  assert.match(stderr, /^vfio-shim: [^\n]*in use[^\n]*\n$/);
  assert.equal(device.state(), 'RUNNING');
});
