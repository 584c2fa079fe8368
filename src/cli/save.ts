import { type Command } from 'commander';
import { addTransfer } from './transfer-command.ts';

export function add(program: Command): void {
  addTransfer(program, 'save', {
    description: "save a device's migration state to a file; the device runs on",
    file: 'the file to make: it appears when it is complete, readable for its owner only',
    force: 'replace the file if it exists',
    help: `The device must not be in use: a VMM's own device is saved by the VMM. It is stopped while its state is read, then runs
again; if that fails, it is reset. A signal ends the command once that is done, and leaves no file. FILE is a path: a
state is not written to stdout, as its header comes last.`,
  });
}
