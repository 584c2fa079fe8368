import { type Command } from 'commander';
import { deviceHelp, parseDevice } from './device-name.ts';
import { checkFileName } from './file-name.ts';
import { transfer } from './transfer.ts';

interface Options {
  readonly force?: true;
  readonly json?: true;
  readonly verbose?: true;
}

export function add(program: Command): void {
  program
    .command('restore')
    .description('load a state that "save" has written into a device, which then runs')
    .argument('<device>', 'the device, see below')
    .argument('<file>', 'a file of "vfio-shim save"')
    .option('--force', 'try it on a device of another kind or size too: its driver decides')
    .option('--json', 'print the result as a line of JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(async (device: string, file: string, options: Options) => {
      parseDevice(device); // a wrong command line is known at once
      checkFileName('restore', file);
      const { force = false, verbose = false, json = false } = options;
      await transfer({ command: 'restore', device, file, force, verbose }, json);
    });
}

const help = `${deviceHelp}

The device must not be in use. All of the file, which is a path, is checked before the device is opened. The protocol may be another than
that of the device that was saved, as long as the driver is of the same kind. A restore that fails resets the device.

Example:
  vfio-shim save sim:qat,size=64M,seed=3 qat.state && vfio-shim restore sim:qat,size=64M qat.state`;
