import { spawn } from 'node:child_process';
import { constants as bufferConstants } from 'node:buffer';
import { Option, type Command } from 'commander';
import { hasErrno, ShimError } from '../error.ts';
import { planDevice } from '../interpose/run/plan-device.ts';
import { groupPath, MAX_EMULATED, type Order, type Plan } from '../interpose/run/plan.ts';
import { removeSysfs, writeSysfs, type ShownDevice } from '../interpose/process/sysfs.ts';
import { isRecording, recordedSpec } from '../recorded/recorded-spec.ts';
import { kindOf } from '../sim/drivers.ts';
import { barSizes, pciConfig } from '../sim/pci.ts';
import { parseSize } from '../sim/size.ts';
import { parseSpec } from '../sim/spec.ts';
import { specHelp } from '../sim/spec-help.ts';
import { dieOf } from './die.ts';
import type { CheckReport } from '../interpose/process/judge-output.ts';
import { tell } from './fail.ts';
import { print, say } from './output.ts';
import type { Log } from './record.ts';

/** What the options of `run` come to. */
export interface RunOptions {
  readonly present: Plan['present'];
  readonly segmentation: Plan['segmentation'];
  readonly roundTrip?: true;
  readonly offerP2p?: true;
  readonly countStopCopy?: true;
  readonly holdPrecopy: string;
  readonly v1StopBySaving?: true;
  readonly v1StopAfterLoad?: true;
  readonly device: readonly string[];
  readonly sysfs?: string;
  readonly mountSysfs?: true;
  readonly iommufd?: true;
  readonly dataSize: string;
  readonly onError: 'reset' | 'report';
  readonly dirtyLog: 'auto' | 'off';
  readonly p2p: 'auto' | 'off';
  readonly log?: string;
  readonly record?: string;
  readonly recordData?: true;
  readonly recordLimit: string;
  readonly trace?: string;
  readonly check?: true;
  readonly status?: string;
  readonly json?: true;
  readonly verbose?: true;
}

/** What Node maps at once: a device's BAR is mapped by its supervisor. */
const LARGEST_MAPPING = bufferConstants.MAX_LENGTH;

/** Set for the process that becomes the target, by the one that waits for it: the descriptor for reports. */
const REPORT_FD = 'VFIO_SHIM_REPORT_FD';

export function add(program: Command): void {
  const command = program
    .command('run')
    .description('run a VMM whose VFIO devices are presented in the migration protocol that it knows')
    .passThroughOptions()
    .argument('<command...>', 'the VMM and its arguments, behind --');
  addRunOptions(command).addHelpText('after', help).action(run);
}

export function addRunOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--present <protocol>',
        'the protocol to present; auto is v1 and v2, and the VMM takes the one it knows; the drafts before v1 have to be asked for',
      )
        .choices(['v1', 'v2', 'auto', 'draft-2018', 'draft-2019'])
        .default('auto'),
    )
    .option(
      '--device <spec>',
      'emulate a device, or play recording:FILE, may be given several times; without it, the devices that the VMM opens are bridged',
      collect,
      [],
    )
    .option('--sysfs <dir>', 'where the sysfsdev directories of emulated devices appear (default: a fresh directory)')
    .option(
      '--mount-sysfs',
      "show them to the VMM, and to nobody else, as the host's PCI devices: /sys/bus/pci/devices",
    )
    .option(
      '--iommufd',
      'emulated devices have nodes of their own besides their groups, /dev/vfio/devices/vfioN, and there is /dev/iommu',
    )
    .option('--data-size <size>', "size of the migration region's data section", '16M')
    .addOption(
      new Option('--on-error <what>', 'a device in ERROR is reset, or shown as device_state 6')
        .choices(['reset', 'report'])
        .default('reset'),
    )
    .addOption(
      new Option('--segmentation <how>', 'v2 data of a v1 device: as it comes, or with its buffers kept apart')
        .choices(['raw', 'framed'])
        .default('raw'),
    )
    .option(
      '--offer-p2p',
      'v1 devices presented in v2 offer P2P, with a full stop in its place: QEMU 10 migrates several',
    )
    .option('--count-stop-copy', 'v2 devices presented in v1 count in pre-copy what stop-and-copy will cost')
    .option(
      '--hold-precopy <size>',
      'v2 devices presented in v1 show that much at least while they have initial bytes',
      '0',
    )
    .option(
      '--v1-stop-by-saving',
      'v1 drivers are stopped by device_state 2: they take no 0 to 2 (learnt, if not said)',
    )
    .option('--v1-stop-after-load', 'v1 drivers take device_state 0 after 4: a VM can be migrated on before it has run')
    .addOption(
      new Option(
        '--dirty-log <use>',
        "a v1 VMM that asks the container for dirty pages is told v2 drivers' logs of DMA",
      )
        .choices(['auto', 'off'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--p2p <use>',
        'devices of a VM stop and start together: in their P2P states, or in a row if these are only offered',
      )
        .choices(['auto', 'off'])
        .default('auto'),
    )
    .option(
      '--round-trip',
      'present each device in the other protocol, or the draft, and back: both halves of the bridge at work',
    )
    .option('--log <file>', "what run has to say while the VMM runs goes to a file (default: to the VMM's stderr)")
    .option(
      '--record <file>',
      'record each access of the VMM, with the calls on drivers that it causes, as lines of JSON',
    )
    .option('--record-data', 'keep the migration data too, in FILE.data')
    .option('--record-limit <size>', 'how large a file of the recording may become', '256M')
    .option('--trace <file>', 'write the same for people, a line per access; - is stderr')
    .option(
      '--check',
      'judge the VMM by the rules of the protocol that it speaks, and say at the end which it has broken',
    )
    .option(
      '--status <socket>',
      'answer at a socket how far migrations are, for vfio-shim status; in a directory it is PID.sock',
    )
    .option('--json', 'print a line of JSON per device at the end')
    .option('-v, --verbose', 'say on stderr what devices go through; so does DEBUG=vfio-shim:*');
}

const help = `
${specHelp()}

With --device, COMMAND gets VFIO_SHIM_SYSFS, the directory of the sysfsdev directories, and VFIO_SHIM_DEVICES, space-separated
GROUP_PATH=NAME, e.g. /dev/vfio/9000=0000:90:00.0. Its exit status is that of this command; 127 if it is not found,
126 if it cannot be executed.

Examples:
  vfio-shim run --present v1 -- qemu-system-x86_64 -device vfio-pci,host=0000:01:00.0,x-enable-migration=on
  vfio-shim run --device qat --sysfs /tmp/s -- qemu-system-x86_64 -device \\
    vfio-pci,sysfsdev=/tmp/s/0000:90:00.0,x-enable-migration=on`;

/** What is ordered whatever process this is, and whatever it inherits. Throws `ERR_ARGUMENT` or `ERR_SPEC`. */
export function ordered(
  options: RunOptions,
): Omit<Order, 'dataFds' | 'log' | 'fds' | 'verbose' | 'sysfs' | 'recording' | 'status'> {
  const dataSection = dataSectionOf(options);
  return {
    devices: planned(options, dataSection),
    dataSection,
    present: options.present,
    roundTrip: options.roundTrip === true,
    segmentation: options.segmentation,
    offerP2P: options.offerP2p === true,
    countStopCopy: options.countStopCopy === true,
    holdPrecopy: sizeOf('--hold-precopy', options.holdPrecopy),
    dirtyPages: options.dirtyLog === 'auto' && (options.present === 'v1' || options.present === 'auto'),
    p2p: options.p2p === 'auto',
    onError: options.onError,
    iommufd: options.iommufd === true,
    lists: options.iommufd === true || options.mountSysfs === true,
    v1: { stopBySaving: options.v1StopBySaving === true, stopAfterLoad: options.v1StopAfterLoad === true },
  };
}

async function run(command: string[], options: RunOptions): Promise<void> {
  const what = ordered(options);
  const reportFd = process.env[REPORT_FD];
  if (options.check === true && options.present.startsWith('draft-')) {
    throw new ShimError('ERR_ARGUMENT', `--check: there are no rules of ${options.present}, but of v1 and v2`);
  }
  if ((options.json === true || options.check === true) && reportFd === undefined) {
    await runAndReport(options);
    return;
  }
  const { checkLimits, checkTracing, dataFdWindow, findCommand, launch } =
    await import('../interpose/process/launch.ts');
  findCommand(command[0] ?? '', process.env['PATH']); // before anything is made that would have to be removed
  checkTracing();
  const [recording, log] = [await recordingOf(options, what), await logOf(options)];
  const order: Order = {
    ...what,
    dataFds: what.present === 'v2' || what.present === 'auto' ? dataFdWindow() : undefined,
    log: log?.name,
    fds: {
      report: reportFd === undefined ? undefined : Number(reportFd),
      log: log?.fd,
      status: undefined,
      ...recording.fds,
    },
    recording: recording.planned,
    status: undefined,
    verbose: options.verbose === true || process.env['DEBUG']?.includes('vfio-shim') === true,
    sysfs: undefined,
  };
  checkLimits(order, options.status !== undefined);
  const sysfs =
    what.devices.length === 0
      ? undefined
      : writeSysfs(
          options.sysfs,
          what.devices.map((device) => shownDevice(device, what.iommufd)),
        );
  if (sysfs?.fresh === true) say(`vfio-shim: sysfsdev directories are in ${sysfs.path}\n`);
  const env: NodeJS.ProcessEnv = { ...process.env };
  if (sysfs !== undefined) {
    env['VFIO_SHIM_SYSFS'] = sysfs.path;
    env['VFIO_SHIM_DEVICES'] = what.devices.map((device) => `${groupPath(device)}=${device.name}`).join(' ');
  }
  Reflect.deleteProperty(env, REPORT_FD);
  try {
    if (options.mountSysfs === true && sysfs !== undefined)
      (await import('../interpose/process/mount-sysfs.ts')).mountSysfs(sysfs.path);
    const begin = (whole: Order): void => launch(whole, command, env);
    if (options.status === undefined) begin({ ...order, sysfs });
    else (await import('./status-socket.ts')).beginWithStatus(options.status, { ...order, sysfs }, begin);
  } catch (error) {
    removeSysfs({ sysfs }); // there may be no keeper to do it
    throw error;
  }
}

async function logOf({ log }: RunOptions): Promise<Log | undefined> {
  return log === undefined ? undefined : (await import('./record.ts')).openLog(log);
}

/** What is recorded, and the descriptors of the files for that. Few runs have any. */
async function recordingOf(
  options: RunOptions,
  what: Omit<Order, 'dataFds' | 'log' | 'fds' | 'verbose' | 'sysfs' | 'recording' | 'status'>,
): Promise<{ planned: Order['recording']; fds: Pick<Order['fds'], 'record' | 'recordData' | 'trace'> }> {
  const { record, recordData, trace, check = false } = options;
  if (record === undefined && trace === undefined && recordData === undefined && !check)
    return { planned: undefined, fds: { record: undefined, recordData: undefined, trace: undefined } };
  const { openRecording, openTrace, recordingHeader, recordingLimit } = await import('./recording.ts');
  const limit = recordingLimit(options);
  const header = recordingHeader({
    command: 'run',
    present: what.present,
    devices: what.devices.map(({ name, text, spec }) => ({ name, device: text, protocol: kindOf(spec).protocol })),
    options: {
      'round-trip': what.roundTrip,
      segmentation: what.segmentation,
      'data-size': what.dataSection,
      'offer-p2p': what.offerP2P,
      'count-stop-copy': what.countStopCopy,
      'hold-precopy': what.holdPrecopy,
      'dirty-log': options.dirtyLog,
      p2p: options.p2p,
      'on-error': what.onError,
      'v1-stop-by-saving': what.v1.stopBySaving,
      'v1-stop-after-load': what.v1.stopAfterLoad,
    },
  });
  return { planned: { header, limit, isJudged: check }, fds: { ...openRecording(options), trace: openTrace(trace) } };
}

function planned(options: RunOptions, dataSection: number): Plan['devices'] {
  if (options.device.length > MAX_EMULATED) {
    throw new ShimError('ERR_ARGUMENT', `run: at most ${MAX_EMULATED} devices, ${options.device.length} were given`);
  }
  const ofEmulated = [
    options.sysfs !== undefined && '--sysfs',
    options.mountSysfs === true && '--mount-sysfs',
    options.iommufd === true && '--iommufd',
  ].find(Boolean);
  if (options.device.length === 0 && ofEmulated) {
    throw new ShimError(
      'ERR_ARGUMENT',
      `${ofEmulated}: is for emulated devices; give at least one --device, e.g. --device qat`,
    );
  }
  return options.device.map((text, n) => {
    const device = planDevice(n, text, isRecording(text) ? recordedSpec(text) : parseSpec(text), dataSection);
    if (device.bar <= LARGEST_MAPPING || kindOf(device.spec).takesPieces === true) return device;
    throw new ShimError(
      'ERR_ARGUMENT',
      `--device ${text}: a BAR of ${device.bar} bytes, ${LARGEST_MAPPING} is the limit`,
    );
  });
}

function shownDevice({ name, group, spec }: Plan['devices'][number], hasNode = false): ShownDevice {
  return { name, group, bars: barSizes(spec), config: pciConfig(spec), hasNode };
}

function sizeOf(option: string, text: string): number {
  return parseSize(text, (why) => new ShimError('ERR_ARGUMENT', `${option} ${text}: ${why}`));
}

function dataSectionOf(options: RunOptions): number {
  const bad = (why: string): ShimError => new ShimError('ERR_ARGUMENT', `--data-size ${options.dataSize}: ${why}`);
  const size = parseSize(options.dataSize, bad);
  if (size >= 4096 && size % 4096 === 0 && size <= 2 ** 30) return size;
  throw new ShimError('ERR_ARGUMENT', `--data-size ${options.dataSize}: is not a multiple of 4096 up to 1G`);
}

function collect(value: string, previous: readonly string[]): string[] {
  return [...previous, value];
}

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGWINCH'] as const;

/**
 * Runs this command once more as the process that becomes the target, waits for it and for the last supervisor, prints
 * the reports and ends as the target did.
 */
async function runAndReport(options: RunOptions): Promise<void> {
  const { inheritedDescriptors } = await import('../sys/fd.ts');
  const given = new Set([0, 1, 2, ...inheritedDescriptors()]);
  const reportFd = Math.max(...given) + 1;
  const stdio = Array.from({ length: reportFd }, (_, fd) => (given.has(fd) ? fd : ('ignore' as const)));
  const child = spawn(process.execPath, process.argv.slice(1), {
    stdio: [...stdio, 'pipe'],
    env: { ...process.env, [REPORT_FD]: String(reportFd) },
  });
  for (const signal of FORWARDED) process.on(signal, () => child.kill(signal));
  const pieces: Buffer[] = [];
  child.stdio[reportFd as 3]?.on('data', (piece: Buffer) => pieces.push(piece));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...how) => resolve(how));
  });
  for (const forwarded of FORWARDED) process.removeAllListeners(forwarded);
  await report(Buffer.concat(pieces).toString(), options);
  if (signal === null) process.exitCode = code ?? 1;
  else dieOf(signal);
}

/**
 * Prints what was reported: with --json all of it, and with --check what the VMM has done wrong, to stderr. If that fails, the status is
 * still that of the command, whose work is done.
 */
async function report(text: string, { json, check }: RunOptions): Promise<void> {
  if (check === true) await tellFindings(text.split('\n').find((line) => line.startsWith('{"check":')));
  if (json !== true) return;
  try {
    print(text);
  } catch (error) {
    if (!hasErrno(error, 'EPIPE')) tell(error);
  }
}

async function tellFindings(line: string | undefined): Promise<void> {
  if (line === undefined) {
    say('vfio-shim: check: the VMM was not judged: there was no recording\n');
    return;
  }
  const { findings, omitted, accesses, isWhole, error } = (JSON.parse(line) as CheckReport).check;
  const { findingText } = await import('../check/vmm/judge.ts');
  const texts = findings.map(findingText);
  if (omitted > 0) texts.push(`${omitted} more findings are not listed`);
  if (error !== undefined) texts.push(error);
  if (!isWhole) texts.push('the recording did not go to the end');
  texts.push(`${accesses} accesses, ${findings.length + omitted} findings`);
  say(texts.map((each) => `vfio-shim: check: ${each}\n`).join(''));
}
