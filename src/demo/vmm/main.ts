/*
 * A small VMM that speaks migration protocol v1, as QEMU 7.2 does, and knows nothing else: it opens a VFIO device and
 * migrates it to another process of its kind.
 *
 *   main.js source|destination < SOCKET      with VFIO_SHIM_DEVICES=GROUP_PATH=NAME
 */
import { writeSync } from 'node:fs';
import { openKernelDevice } from '../../kernel/open.ts';
import { openChannel } from './channel.ts';
import { takeIn } from './destination.ts';
import { FdDevice } from './fd-device.ts';
import { migrateAway } from './source.ts';
import { tell } from './steps.ts';

try {
  openChannel();
  const [groupPath = '', name = ''] = process.env['VFIO_SHIM_DEVICES']?.split(' ')[0]?.split('=') ?? [];
  const opened = openKernelDevice(`${groupPath}:${name}`); // until this process ends
  const device = new FdDevice(opened.port);
  tell({ step: 'opened', device: name, dataSection: device.dataSection.size, guestMemory: device.bar.length });
  if (process.argv[2] === 'source') migrateAway(device);
  else takeIn(device);
} catch (error) {
  writeSync(2, `${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
