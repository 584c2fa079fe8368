import type { Command } from 'commander';
import { ShimError } from '../error.ts';
import { printable } from '../recording/text.ts';
import { replayable, replayDevice, type DeviceReplay, type Replayable, type UsedDevice } from '../replay/index.ts';
import { migratableOf, openDevice } from './device.ts';
import { deviceHelp, parseDevice, type DeviceName } from './device-name.ts';
import { useLogs } from './logs.ts';
import { print, say } from './output.ts';

interface ReplayCommandOptions {
  readonly device: readonly string[];
  readonly strict?: true;
  readonly json?: true;
  readonly verbose?: true;
}

export function add(program: Command): void {
  program
    .command('replay')
    .description('do to a device what a recorded VMM did to its own, and compare the answers')
    .argument('<file>', 'the recording of "run --record", or of save or restore')
    .requiredOption(
      '--device <device>',
      'the device; given several times, one for each device of the recording, in its order',
      (value: string, previous: readonly string[] | undefined) => [...(previous ?? []), value],
    )
    .option('--strict', 'compare every answer, those too that may differ from one run to the next')
    .option('--json', 'print JSON')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', help)
    .action(replay);
}

const help = `
The exit status is 0 if the device answered as the recorded one did, and 1 if not.
${deviceHelp}

Example:
  vfio-shim run --device qat --record vm.jsonl --record-data -- VMM; vfio-shim replay vm.jsonl --device sim:qat`;

/** What was replayed on which device. */
interface Replayed extends DeviceReplay {
  /** What the recorded device was; null if that is not known. */
  readonly recordedAs: string | null;
  readonly device: string;
}

function replay(file: string, options: ReplayCommandOptions): void {
  useLogs(options.verbose === true);
  const names = options.device.map(parseDevice);
  const recording = replayable(file);
  const devices = recording.devices.map((used, n) => replayed(recording, used, nameFor(recording, names, n), options));
  const same = devices.every(({ differences }) => differences.length === 0);
  if (options.json === true) {
    print(`${JSON.stringify({ format: 'vfio-shim replay', version: 1, recording: file, same, devices })}\n`);
  } else print(devices.map(inWords).join('\n'));
  if (!same) process.exitCode = 1;
}

/** The only device for each, or one for each. */
function nameFor({ file, devices }: Replayable, names: readonly DeviceName[], n: number): DeviceName {
  const name = names.length === 1 ? names[0] : names[n];
  if (name !== undefined && (names.length === 1 || names.length === devices.length)) return name;
  const used = devices.map((each) => printable(each.name)).join(', ');
  throw new ShimError(
    'ERR_ARGUMENT',
    `--device: ${names.length} were given, and ${file} has ${devices.length} devices that were used (${used})`,
  );
}

function replayed(recording: Replayable, used: UsedDevice, name: DeviceName, options: ReplayCommandOptions): Replayed {
  using device = openDevice(name);
  const result = replayDevice(recording, used, migratableOf(device), {
    strict: options.strict === true,
    contents: name.kind === 'sim' && isSimulated(used, recording),
    warn: (message) => say(`vfio-shim: ${name.text}: ${message}\n`),
  });
  return { recordedAs: used.device, device: name.text, ...result };
}

/** `run` is told of emulated devices alone beforehand, `save` and `restore` of each by its DEVICE. */
function isSimulated({ device }: UsedDevice, { header }: Replayable): boolean {
  return device !== null && (header.command === 'run' || device.startsWith('sim:'));
}

function inWords(found: Replayed): string {
  const { name, device, calls, replayed: made, skipped, differences, differencesOmitted, departed, contents } = found;
  const count = differences.length + differencesOmitted;
  const lines = [
    `${printable(name)} on ${device}: ${made} of ${calls} calls, ${count === 0 ? 'answered as recorded' : `${count} ${count === 1 ? 'difference' : 'differences'}`}`,
    ...differences.map(
      (each) =>
        `  line ${each.line}: ${each.call}: ${each.aspect}: ${short(each.replayed)}, recorded ${short(each.recorded)}`,
    ),
    differencesOmitted > 0 ? `  and ${differencesOmitted} more` : '',
    skipped.lost > 0 ? `  ${skipped.lost} calls were not made, as the device was in another state than recorded` : '',
    skipped.unknown > 0 ? `  ${skipped.unknown} calls were not made, as a recording does not say all of them` : '',
    departed === null
      ? ''
      : `  from line ${departed} on, the data of that session were others, and were compared no more`,
    contents ? '' : '  data were not compared by content, as only simulated devices have the same each time',
  ];
  return `${lines.filter((line) => line !== '').join('\n')}\n`;
}

/** As much of a hash as tells it from others. */
function short(text: string): string {
  return text.replace(/(?<=^sha256 [0-9a-f]{16})[0-9a-f]+$/, '');
}
