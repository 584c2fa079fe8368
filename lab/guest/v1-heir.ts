import { writeFileSync } from 'node:fs';
import { FdPort } from '../../src/kernel/fd-port.ts';
import type { DeviceHandle } from '../../src/kernel/handle.ts';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { duplicateFd } from '../../src/sys/pidfd.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import { findMigrationRegion } from '../../src/vfio/client/device-info.ts';
import { PortV1Device } from '../../src/vfio/client/port-v1-device.ts';
import { saveV1 } from './v1-save.ts';

/**
 * Two small v1 programs without a VM, for two runs of `vfio-shim run`. `lend GROUP:UUID` opens a device, prints its process id and
 * descriptor, and stays. `inherit FILE GROUP:UUID FILE PID FD` opens a device of its own, takes the other's, as it would get it over a
 * socket, and saves both, the one while the other is in pre-copy; it prints the device_state that each of them had then.
 */

const [action, ...args] = process.argv.slice(2);
if (action === 'lend') lend(args[0] ?? '');
else inherit(args as [string, string, string, string, string]);

function v1Of(handle: DeviceHandle): PortV1Device {
  const port = new FdPort(handle);
  const region = findMigrationRegion(port);
  if (region === undefined) throw new Error('the device has no migration region');
  return new PortV1Device(port, region, true);
}

function lend(path: string): void {
  const opened = openKernelDevice(path);
  const state = new V1RegisterAccess(v1Of(opened)).deviceState();
  console.log(JSON.stringify({ pid: process.pid, fd: opened.number, state }));
  setInterval(() => opened.number, 1000);
}

function inherit([file, path, theirFile, pid, fd]: readonly [string, string, string, string, string]): void {
  using opened = openKernelDevice(path);
  const own = v1Of(opened);
  using taken = duplicateFd(Number(pid), Number(fd));
  if (taken === undefined) throw new Error(`process ${pid} has no descriptor ${fd}`);
  const theirs = v1Of(taken);
  const states: number[] = [];
  const state = saveV1(own, () => {
    states.push(...[own, theirs].map((device) => new V1RegisterAccess(device).deviceState()));
    writeFileSync(theirFile, saveV1(theirs));
  });
  writeFileSync(file, state);
  console.log(JSON.stringify({ states }));
}
