import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { CLI } from '../../tools/vmm/cli.ts';
import { check, note } from '../guest/check.ts';
import { BAR_SIZE, V1Mem } from '../guest/v1mem.ts';

/**
 * Drivers of the kernel that take their time for each buffer, saved at once by a VMM with a thread for each: bridged, and by the
 * driver's own protocol. One supervisor must not have them take turns.
 */

const SAVE_ALL = fileURLToPath(new URL('../../save-all', import.meta.url));
/** Far more than the emulated processor needs for a buffer of each device. */
const DELAY = 200;
const RECORDS = 10;

interface Saved {
  readonly bytes: number;
  readonly loopSeconds: number;
  readonly checksums: readonly string[];
  readonly atOnce: number;
}

function saveAll(devices: readonly V1Mem[], generation: 'v1' | 'v2', ...run: readonly string[]): Saved {
  V1Mem.set(DELAY, RECORDS);
  const VFIO_SHIM_DEVICES = devices.map(({ group, uuid }) => `${group}=${uuid}`).join(' ');
  const options = { encoding: 'utf8', env: { ...process.env, VFIO_SHIM_DEVICES, CHECKSUM: '1' } } as const;
  const { stdout, stderr, status } = spawnSync('env', [...run, SAVE_ALL, generation], options);
  assert.equal(status, 0, stderr);
  return { ...(JSON.parse(stdout) as Saved), atOnce: V1Mem.mostBusy() };
}

for (const count of [1, 4]) {
  await check(`${count} at once, each with its own bytes`, () => {
    const devices = Array.from({ length: count }, () => new V1Mem());
    for (const device of devices) device.fillBar(randomBytes(BAR_SIZE));
    const native = saveAll(devices, 'v1');
    const bridged = saveAll(devices, 'v2', process.execPath, CLI, 'run', '--');
    V1Mem.set(0);
    assert.deepEqual(bridged.checksums, native.checksums);
    assert.equal(bridged.bytes, native.bytes);
    assert.equal(native.atOnce, count);
    // fewer than all if the emulated processor is so slow that a thread is not worth what it costs
    assert.ok(count === 1 || bridged.atOnce > 1, 'the supervisor had them take turns');
    const ms = ({ loopSeconds }: Saved): number => Math.round(loopSeconds * 1000);
    note(
      `${count} devices: bridged ${ms(bridged)} ms, by their own protocol ${ms(native)} ms, ratio ${(bridged.loopSeconds / native.loopSeconds).toFixed(2)}, ${bridged.atOnce} at once`,
    );
  });
}
