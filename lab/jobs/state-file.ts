import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { VFIO_DEVICE_STATE } from '../../src/abi/vfio-v2.ts';
import { regionInfo } from '../../src/vfio/client/device-info.ts';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { trySyscall, withAddress } from '../../src/sys/libc.ts';
import { check } from '../guest/check.ts';
import { json, shim } from '../guest/command.ts';
import { Mtty } from '../guest/mtty.ts';
import { RawDevice } from '../guest/raw-device.ts';

/** `probe`, `save` and `restore` with a device of a real v2 driver, which keeps its registers while nobody has it open. */

const SCRATCH = 7;
const SAVED = ['RUNNING', 'PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY', 'STOP', 'RUNNING'];

const deviceOf = (mtty: Mtty): string => `vfio:${mtty.group}:${mtty.uuid}`;

/** The scratch register of a port, set if a value is given. */
function scratch(mtty: Mtty, port: number, value?: number): number {
  using device = openKernelDevice(`${mtty.group}:${mtty.uuid}`);
  const region = regionInfo(device.port, port);
  assert.ok(region);
  const at = region.offset + BigInt(SCRATCH);
  const byte = Uint8Array.of(value ?? 0);
  const call = value === undefined ? 'pread64' : 'pwrite64';
  // SAFETY: for its one byte
  assert.equal(
    withAddress(byte, (from) => trySyscall(call, device.number, from, 1, at)),
    1,
  );
  return byte[0] ?? -1;
}

await check('probe tells what an mtty is, and changes nothing', () => {
  const mtty = Mtty.create('mtty-2');
  scratch(mtty, 0, 0x5a);
  const found = json('probe', deviceOf(mtty));
  assert.deepEqual([found['protocol'], found['migrationFlags'], found['state']], ['v2', 7, 'RUNNING']);
  assert.equal(found['dataSize'], 96);
  assert.equal(found['driver'], 'mtty');
  assert.equal(scratch(mtty, 0), 0x5a);
});

await check('a state goes through a file from one mtty to another', (bed) => {
  const [from, to] = [Mtty.create('mtty-2'), Mtty.create('mtty-2')];
  const file = bed.path('state');
  scratch(from, 0, 0x5a);
  scratch(from, 1, 0xa7);
  const saved = json('save', deviceOf(from), file);
  assert.deepEqual([saved['states'], saved['bytes']], [SAVED, 96]);
  assert.equal(statSync(file).size, 4096 + 96 + 8 * Number(saved['buffers']));
  assert.deepEqual([scratch(to, 0), scratch(to, 1)], [0, 0]);
  const restored = json('restore', deviceOf(to), file);
  assert.deepEqual([restored['states'], restored['sha256']], [['RUNNING', 'RESUMING', 'RUNNING'], saved['sha256']]);
  assert.deepEqual([scratch(to, 0), scratch(to, 1)], [0x5a, 0xa7]);
  assert.deepEqual([scratch(from, 0), scratch(from, 1)], [0x5a, 0xa7]);
});

await check('another kind of mtty is refused by its identity, and with --force by its driver', (bed) => {
  const [from, to] = [Mtty.create('mtty-1'), Mtty.create('mtty-2')];
  const file = bed.path('state');
  json('save', deviceOf(from), file);
  const refused = shim('restore', deviceOf(to), file);
  assert.match(refused.stderr, /mdevType is "mtty-1" there and "mtty-2" here.*\[ERR_OTHER_DEVICE, EINVAL\]\n$/);
  const forced = shim('restore', deviceOf(to), file, '--force', '-v');
  assert.equal(forced.status, 1);
  assert.match(forced.stderr, /\[ERR_DEVICE, E[A-Z]+\]\n$/);
  assert.equal(json('probe', deviceOf(to))['state'], 'RUNNING');
});

await check('a device that was left in another state is told, and reset', (bed) => {
  const mtty = Mtty.create('mtty-1');
  {
    using device = new RawDevice(mtty);
    device.setState(VFIO_DEVICE_STATE.STOP_COPY).fd?.close();
  }
  const found = json('probe', deviceOf(mtty));
  assert.deepEqual([found['state'], found['stale']], ['STOP_COPY', true]);
  assert.equal(json('probe', deviceOf(mtty))['state'], 'STOP_COPY');
  const { stderr, status } = shim('save', deviceOf(mtty), bed.path('state'));
  assert.equal(status, 0);
  assert.match(stderr, /^vfio-shim: \S+ was left in STOP_COPY by an earlier user: reset\n$/);
});

await check('a device in use is refused in one line', () => {
  const mtty = Mtty.create('mtty-1');
  using device = new RawDevice(mtty);
  assert.equal(device.state(), 'RUNNING');
  const { stderr, status } = shim('probe', deviceOf(mtty));
  assert.deepEqual(
    [status, stderr],
    [1, `vfio-shim: ${mtty.group}: is in use by another process [ERR_DEVICE, EBUSY]\n`],
  );
});
