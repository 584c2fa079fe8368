import { type Command } from 'commander';
import { deviceHelp, parseDevice } from './device-name.ts';
import { checkFileName } from './file-name.ts';
import { recordingLimit, type RecordingOptions } from './recording.ts';
import type { TransferOrder } from './transfer-control.ts';
import { transfer } from './transfer.ts';

interface Options extends RecordingOptions {
  readonly force?: true;
  readonly json?: true;
  readonly verbose?: true;
}

/** What the help of `save` and of `restore` says, as far as they differ. */
interface Texts {
  readonly description: string;
  readonly file: string;
  readonly force: string;
  readonly help: string;
}

/** Adds `save` or `restore`: the same command line, for the two directions of a transfer. */
export function addTransfer(program: Command, command: TransferOrder['command'], texts: Texts): void {
  program
    .command(command)
    .description(texts.description)
    .argument('<device>', 'the device, see below')
    .argument('<file>', texts.file)
    .option('--force', texts.force)
    .option('--record <file>', 'record each call on the device as lines of JSON')
    .option('--record-data', 'keep the migration data too, in FILE.data')
    .option('--record-limit <size>', 'how large a file of the recording may become', '256M')
    .option('--json', 'print the result as a line of JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', `${deviceHelp}\n\n${texts.help}\n\n${example}`)
    .action(async (device: string, file: string, options: Options) => {
      parseDevice(device); // a wrong command line is known at once
      checkFileName(command, file);
      const { force = false, verbose = false, json = false, record, recordData, recordLimit } = options;
      recordingLimit(options);
      const recording = { ...(record !== undefined && { record }), ...(recordData && { recordData }), recordLimit };
      await transfer({ command, device, file, force, verbose, recording }, json);
    });
}

const example = `Example:
  vfio-shim save sim:qat,size=64M,seed=3 qat.state && vfio-shim restore sim:qat,size=64M qat.state`;
