import { setImmediate as pause } from 'node:timers/promises';
import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import {
  checkSteps,
  deviationLists,
  deviationsNamed,
  deviationsOf,
  findingText,
  inWords,
  judgeRecording,
  junit,
  parseDeviations,
  rulesFor,
  Tap,
  type CheckedDevice,
  type Conclusion,
  type Deviation,
} from '../check/index.ts';
import { ShimError } from '../error.ts';
import { onFile } from '../state-file/errors.ts';
import { dieOf } from './die.ts';
import { migratableOf, openDevice, type OpenDevice } from './device.ts';
import { deviceHelp, parseDevice, type DeviceName } from './device-name.ts';
import { useLogs } from './logs.ts';
import { print } from './output.ts';
import { recordingBytes } from './recording-file.ts';

interface Options {
  readonly deviations?: string;
  readonly junit?: string;
  readonly recording?: string;
  readonly json?: true;
  readonly verbose?: true;
}

export function add(program: Command): void {
  program
    .command('check')
    .description('try on a device whether its driver keeps the rules of its protocol; or judge the VMM of a recording')
    .argument('[device]', 'the device, see below')
    .option(
      '--deviations <known>',
      "rules that the driver is known to break: a name, or a file (default: those of the device's driver)",
    )
    .option('--junit <file>', 'write a report as JUnit XML')
    .option('--recording <file>', 'judge the VMM of a recording of "run --record" in place of a device; - is stdin')
    .option('--json', 'print a line of JSON in place of TAP')
    .option('-v, --verbose', 'log what is done, on stderr')
    .addHelpText('after', `${deviceHelp}\n\n${help}`)
    .action(async (device: string | undefined, options: Options) => {
      useLogs(options.verbose === true);
      if (options.recording !== undefined) judge(options.recording, device, options);
      else if (device !== undefined) await check(parseDevice(device), options);
      else throw new ShimError('ERR_ARGUMENT', 'check: give a device, or --recording FILE');
    });
}

const help = `The device must not be in use. It is stopped, saved, loaded with good and with bad states, and reset, many times; what it held is
lost. It runs at the end. Each rule is a line of TAP 14: "# SKIP" says why one was not tried, "# TODO" that the driver is known to
break it. The exit status is 0 if no other rule is broken, and 1 if one is.

Known deviations: ${deviationLists.map(({ name }) => name).join(', ')}; none is an empty list. A file of them is JSON:
[{"rule": "v2-precopy-end", "why": "...", "source": "..."}]

Examples:
  vfio-shim check sim:qat
  vfio-shim check --recording vm.jsonl`;

function judge(file: string, device: string | undefined, { deviations, junit: report, json }: Options): void {
  if (device !== undefined) throw new ShimError('ERR_ARGUMENT', 'check: give a device or --recording, not both');
  if (deviations !== undefined || report !== undefined) {
    throw new ShimError('ERR_ARGUMENT', 'check --recording: --deviations and --junit are for a device');
  }
  const judgement = onFile(file, () => judgeRecording(recordingBytes(file)));
  const { findings, omitted, accesses, isWhole } = judgement;
  if (findings.length > 0) process.exitCode = 1;
  if (json === true) {
    print(`${JSON.stringify(judgement)}\n`);
    return;
  }
  const more = omitted === 0 ? '' : `, ${omitted} of which are not listed`;
  const part = isWhole ? '' : '; the recording does not go to the end';
  const total = `${accesses} accesses, ${findings.length + omitted} findings${more}${part}`;
  print([...findings.map(findingText), total].map((line) => `${line}\n`).join(''));
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function check(name: DeviceName, options: Options): Promise<void> {
  let device = openDevice(name);
  const reopen = (): CheckedDevice => {
    device[Symbol.dispose]();
    device = openAgain(name);
    return checked(device);
  };
  let signal: (typeof SIGNALS)[number] | undefined;
  const hasCome = (): boolean => signal !== undefined;
  for (const each of SIGNALS) process.on(each, () => (signal ??= each));
  try {
    const opened = checked(device);
    const rules = rulesFor(opened.migratable.protocol);
    const known = deviationsFor(device, options.deviations, new Set(rules.map(({ id }) => id)));
    const tap = options.json === true ? undefined : new Tap();
    if (tap !== undefined) print(tap.head(rules.length, about(device, opened, known)));
    const steps = checkSteps(opened, { deviations: known.deviations, reopen });
    try {
      let step = steps.next();
      while (step.done !== true && !hasCome()) {
        if (tap !== undefined) print(tap.line(step.value));
        await pause(); // a signal that came meanwhile
        step = steps.next();
      }
      if (step.done === true) finish(step.value, device, known.name, options, tap);
    } finally {
      steps.return(undefined as never); // the device runs, whatever has happened
    }
    if (signal !== undefined) dieOf(signal);
  } finally {
    for (const each of SIGNALS) process.removeAllListeners(each);
    device[Symbol.dispose]();
  }
}

/** Servers of vfio-user may end with their first client, as libvfio-user's samples do. */
function openAgain(name: DeviceName): OpenDevice {
  try {
    return openDevice(name);
  } catch (error) {
    if (name.kind !== 'socket' || !(error instanceof ShimError)) throw error;
    const { code, errno, message } = error;
    throw new ShimError(code, `its server takes no client after the first: ${message}`, {
      ...(errno !== undefined && { errno }),
      cause: error,
    });
  }
}

function checked(device: OpenDevice): CheckedDevice {
  const migratable = migratableOf(device);
  return { migratable, dmaLog: migratable.protocol === 'v2' ? device.dmaLog() : undefined };
}

function finish(
  conclusion: Conclusion,
  { text }: OpenDevice,
  deviations: string,
  { junit: report }: Options,
  tap: Tap | undefined,
): void {
  if (!conclusion.conforms) process.exitCode = 1;
  if (report !== undefined) onFile(report, () => writeFileSync(report, junit(`vfio-shim check ${text}`, conclusion)));
  if (tap !== undefined) print(tap.tail(conclusion));
  else print(`${JSON.stringify({ device: text, deviations, summary: inWords(conclusion), ...conclusion })}\n`);
}

interface Known {
  readonly name: string;
  readonly deviations: readonly Deviation[];
}

/** Those that were asked for, or else those of the driver. */
function deviationsFor({ facts, text }: OpenDevice, asked: string | undefined, rules: ReadonlySet<string>): Known {
  if (asked === 'none') return { name: 'none', deviations: [] };
  if (asked === undefined) {
    const socket = text.startsWith('vfio-user:') ? 'vfio-user' : undefined;
    const driver = facts.driver?.replace(/ \(simulated\)$/, '') ?? socket;
    return (driver === undefined ? undefined : deviationsOf(driver)) ?? { name: 'none', deviations: [] };
  }
  const named = deviationsNamed(asked);
  if (named !== undefined) return named;
  if (!/[./]/.test(asked)) {
    const names = deviationLists.map(({ name }) => name).join(', ');
    throw new ShimError(
      'ERR_ARGUMENT',
      `--deviations ${asked}: is none of ${names}, none; a file has . or / in its name`,
    );
  }
  return {
    name: asked,
    deviations: parseDeviations(
      onFile(asked, () => readFileSync(asked, 'utf8')),
      rules,
    ),
  };
}

function about({ text }: OpenDevice, { migratable }: CheckedDevice, { name, deviations }: Known): string[] {
  const { protocol } = migratable;
  const flags = protocol === 'v2' ? `, migration flags ${migratable.device.migrationFlags}` : '';
  return [
    `${text}: ${protocol}${flags}; it is stopped, loaded and reset many times, and runs at the end`,
    `known deviations: ${name}${name === 'none' ? '' : ` (${deviations.length})`}`,
  ];
}
