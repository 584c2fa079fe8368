import { readFileSync, writeFileSync } from 'node:fs';
import { findMigrationRegion } from '../../src/vfio/client/device-info.ts';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { PortV1Device } from '../../src/vfio/client/port-v1-device.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { Interrupted } from './interrupted.ts';
import { saveV1 } from './v1-save.ts';

/**
 * A small v1 program without a VM, for `vfio-shim run`: `save FILE GROUP:UUID` or `restore FILE GROUP:UUID`. With `--interrupt`
 * before the device, the supervisor is killed before each access to the region. Prints a line of JSON.
 */

const [action, file = '', ...rest] = process.argv.slice(2);
const name = process.env['VFIO_SHIM_LAB_NAME'] ?? '';
using opened = openKernelDevice(rest.at(-1) ?? '');
const region = findMigrationRegion(opened.port);
if (region === undefined) throw new Error('the device has no migration region');
const plain = new PortV1Device(opened.port, region, true);
const interrupted = rest.includes('--interrupt') ? new Interrupted(plain, name) : undefined;
const device: V1Device = interrupted ?? plain;

if (action === 'save') writeFileSync(file, saveV1(device));
else restore(device, readFileSync(file));
console.log(JSON.stringify({ accesses: interrupted?.accesses, killed: interrupted?.killed }));

/** In two pieces, which are not the source's. */
function restore(to: V1Device, bytes: Buffer): void {
  const restoring = new V1Restore(to);
  restoring.setup();
  restoring.load(bytes.subarray(0, 40));
  restoring.load(bytes.subarray(40));
  restoring.complete();
}
