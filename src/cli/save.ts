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
    .command('save')
    .description("save a device's migration state to a file; the device runs on")
    .argument('<device>', 'the device, see below')
    .argument('<file>', 'the file to make: it appears when it is complete, readable for its owner only')
    .option('--force', 'replace the file if it exists')
    .option('--json', 'print the result as a line of JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(async (device: string, file: string, options: Options) => {
      parseDevice(device); // a wrong command line is known at once
      checkFileName('save', file);
      const { force = false, verbose = false, json = false } = options;
      await transfer({ command: 'save', device, file, force, verbose }, json);
    });
}

const help = `${deviceHelp}

The device must not be in use: a VMM's own device is saved by the VMM. It is stopped while its state is read, then runs
again; if that fails, it is reset. A signal ends the command once that is done, and leaves no file. FILE is a path: a
state is not written to stdout, as its header comes last.

Example:
  vfio-shim save sim:qat,size=64M,seed=3 qat.state && vfio-shim restore sim:qat,size=64M qat.state`;
