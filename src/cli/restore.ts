import { type Command } from 'commander';
import { addTransfer } from './transfer-command.ts';

export function add(program: Command): void {
  addTransfer(program, 'restore', {
    description: 'load a state that "save" has written into a device, which then runs',
    file: 'a file of "vfio-shim save"',
    force: 'try it on a device of another kind or size too: its driver decides',
    help: `The device must not be in use. All of the file, which is a path, is checked before the device is opened. The protocol may be another than
that of the device that was saved, as long as the driver is of the same kind. A restore that fails resets the device.`,
  });
}
