import { Option, type Command } from 'commander';
import { ShimError } from '../error.ts';
import { parseSize } from '../sim/size.ts';
import { addServiceRecording, recordingAsked, type ServiceRecordingOptions } from './service-recording.ts';
import { service, timeoutOf } from './service.ts';

export interface ProxyOrder {
  readonly command: 'proxy';
  readonly present: 'v1' | 'v2' | 'auto';
  readonly roundTrip: boolean;
  readonly segmentation: 'raw' | 'framed';
  readonly dropPrecopy: boolean;
  /** Bytes of the migration region's data section. */
  readonly dataSection: number;
  readonly listen: string;
  readonly connect: string;
  /** In milliseconds. */
  readonly timeout: number;
  readonly verbose: boolean;
  readonly recording: ServiceRecordingOptions;
}

interface Options extends ServiceRecordingOptions {
  readonly present: ProxyOrder['present'];
  readonly roundTrip?: true;
  readonly segmentation: ProxyOrder['segmentation'];
  readonly dropPrecopy?: true;
  readonly dataSize: string;
  readonly listen: string;
  readonly connect: string;
  readonly timeout: string;
  readonly verbose?: true;
}

export function add(program: Command): void {
  const proxy = program
    .command('proxy')
    .description('stand between a client and a server of vfio-user that speak different migration protocols')
    .requiredOption('--listen <socket>', 'the path of the socket for clients')
    .requiredOption('--connect <socket>', "the path of the server's socket")
    .addOption(
      new Option('--present <protocol>', 'the protocol to present; with auto, the client takes the one it knows')
        .choices(['v1', 'v2', 'auto'])
        .default('auto'),
    )
    .addOption(
      new Option('--segmentation <how>', 'v2 data of a v1 device: as it comes, or with its buffers kept apart')
        .choices(['raw', 'framed'])
        .default('raw'),
    )
    .option(
      '--drop-precopy',
      'v2 servers that begin their data anew at stop-and-copy: nothing of pre-copy is handed on',
    )
    .option('--round-trip', 'translate to the other protocol and back, too: both halves of the bridge at work')
    .option(
      '--data-size <size>',
      "size of the migration region's data section, in which two buffers of 1M have room",
      '2M',
    )
    .option('--timeout <seconds>', 'how long client and server may take for a message, or for an answer', '30');
  addServiceRecording(proxy)
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(async (options: Options) => {
      const { dropPrecopy, roundTrip, verbose, dataSize, timeout, present, segmentation, listen, connect } = options;
      await service({
        command: 'proxy',
        present,
        segmentation,
        listen,
        connect,
        recording: recordingAsked(options),
        dropPrecopy: dropPrecopy === true,
        roundTrip: roundTrip === true,
        verbose: verbose === true,
        dataSection: dataSectionOf(dataSize),
        timeout: timeoutOf(timeout),
      });
    });
}

/** Two buffers that take turns. A client reads one at once, and a message has 1 MiB of data at most. */
const LARGEST = 2 * 2 ** 20;

function dataSectionOf(text: string): number {
  const size = parseSize(text, (why) => new ShimError('ERR_ARGUMENT', `--data-size ${text}: ${why}`));
  if (size >= 4096 && size % 4096 === 0 && size <= LARGEST) return size;
  throw new ShimError('ERR_ARGUMENT', `--data-size ${text}: is not a multiple of 4096 up to 2M`);
}

const help = `
Everything but migration passes. A client of the server's own protocol is served as it is, but for requests that would end an old server.
One client is served at a time; when it goes, the device is brought out of a migration that it has left. SIGTERM ends it.
--record has what the client asks, translated or passed, and what the server's device was asked for it; trace, timeline, replay and
check --recording read it. Of a migration region of the server's own that the client maps, it has sizes and no data.

Example:
  vfio-shim serve --device qat,size=1M --listen /tmp/new.sock &
  vfio-shim proxy --present v1 --listen /tmp/old.sock --connect /tmp/new.sock &
  vfio-shim save vfio-user:/tmp/old.sock qat.state`;
