import { type Command } from 'commander';
import { ShimError } from '../error.ts';
import { planDevice } from '../interpose/run/plan-device.ts';
import { kindOf } from '../sim/drivers.ts';
import { parseSpec } from '../sim/spec.ts';
import { specHelp } from '../sim/spec-help.ts';
import { addServiceRecording, recordingAsked, type ServiceRecordingOptions } from './service-recording.ts';
import { service, timeoutOf } from './service.ts';

export interface ServeOrder {
  readonly command: 'serve';
  readonly device: string;
  readonly listen: string;
  /** In milliseconds. */
  readonly timeout: number;
  readonly verbose: boolean;
  readonly recording: ServiceRecordingOptions;
}

interface Options extends ServiceRecordingOptions {
  readonly device: string;
  readonly listen: string;
  readonly timeout: string;
  readonly verbose?: true;
}

export function add(program: Command): void {
  const serve = program
    .command('serve')
    .description('serve a simulated device to clients of vfio-user, such as QEMU')
    .requiredOption('--device <spec>', 'the device')
    .requiredOption('--listen <socket>', 'the path of the socket')
    .option('--timeout <seconds>', 'how long a client may take for a message, or for its answer to one', '30');
  addServiceRecording(serve)
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(async (options: Options) => {
      const { device, listen, verbose = false } = options;
      planServed(device); // a wrong command line is known at once
      const [timeout, recording] = [timeoutOf(options.timeout), recordingAsked(options)];
      await service({ command: 'serve', device, listen, timeout, verbose, recording });
    });
}

/** The device of a SPEC, as it is served. Throws `ERR_ARGUMENT` or `ERR_SPEC`. */
export function planServed(text: string): ReturnType<typeof planDevice> {
  const spec = parseSpec(text);
  const { protocol } = kindOf(spec);
  if (protocol === 'v1' || protocol === 'v2') return planDevice(0, text, spec, 4096);
  throw new ShimError('ERR_ARGUMENT', `--device ${text}: vfio-user has never carried ${protocol}`);
}

const help = `
${specHelp()}

One client is served at a time, and the device is reset when it goes. The device's migration is that of its driver: v1 by a migration
region and DIRTY_PAGES, v2 by DEVICE_FEATURE, MIG_DATA_READ and MIG_DATA_WRITE; "vfio-shim proxy" translates. SIGTERM ends it.
What --record writes is read by trace, timeline, replay and check --recording, as a recording of run.

Example:
  vfio-shim serve --device qat,size=1M --listen /tmp/qat.sock &
  qemu-system-x86_64 -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/qat.sock"}}'`;
