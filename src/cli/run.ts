import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { ShimError } from '../error.ts';
import { groupPath, MAX_EMULATED, planDevice, type Plan } from '../interpose/plan.ts';
import { writeSysfs } from '../interpose/sysfs.ts';
import { parseSize, parseSpec, specHelp } from '../sim/spec.ts';

interface RunOptions {
  readonly present: Plan['present'];
  readonly segmentation: Plan['segmentation'];
  readonly roundTrip?: true;
  readonly device: readonly string[];
  readonly sysfs?: string;
  readonly dataSize: string;
  readonly onError: 'reset' | 'report';
  readonly trace?: string;
  readonly json?: true;
}

/** Set for the process that becomes the target, by the one that waits for it: the descriptor for reports. */
const REPORT_FD = 'VFIO_SHIM_REPORT_FD';

export function add(program: Command): void {
  program
    .command('run')
    .description('run a VMM with emulated VFIO devices, presented in the migration protocol it knows')
    .passThroughOptions()
    .argument('<command...>', 'the VMM and its arguments, behind --')
    .addOption(
      new Option('--present <protocol>', 'the protocol to present; auto is both, and the VMM takes the one it knows')
        .choices(['v1', 'v2', 'auto'])
        .default('auto'),
    )
    .option('--device <spec>', 'emulate a device; may be given several times', collect, [])
    .option('--sysfs <dir>', 'where the sysfsdev directories appear (default: a fresh directory)')
    .option('--data-size <size>', "size of the v1 region's data section", '16M')
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
    .option('--round-trip', 'present each device in the other protocol and back: both halves of the bridge at work')
    .option('--trace <file>', 'write a line of JSON per trapped call')
    .option('--json', 'print a line of JSON per device at the end')
    .addHelpText('after', help)
    .action(run);
}

const help = `
${specHelp()}

COMMAND gets VFIO_SHIM_SYSFS, the directory of the sysfsdev directories, and VFIO_SHIM_DEVICES, space-separated
GROUP_PATH=NAME, e.g. /dev/vfio/9000=0000:90:00.0. Its exit status is that of this command; 127 where it is not found,
126 where it cannot be executed.

Example:
  vfio-shim run --device qat --sysfs /tmp/s -- qemu-system-x86_64 -device \\
    vfio-pci,sysfsdev=/tmp/s/0000:90:00.0,x-enable-migration=on`;

async function run(command: string[], options: RunOptions): Promise<void> {
  const devices = planned(options);
  const reportFd = process.env[REPORT_FD];
  if (options.json === true && reportFd === undefined) {
    await runAndReport();
    return;
  }
  const { dataFdWindow, findCommand, launch } = await import('../interpose/launch.ts');
  findCommand(command[0] ?? '', process.env['PATH']); // before anything is made that would have to be removed
  if (options.trace !== undefined) checkWritable(options.trace);
  const sysfs = writeSysfs(options.sysfs, devices);
  // written at once: a stream of Node's would change what the target inherits
  if (sysfs.fresh) writeSync(2, `vfio-shim: sysfsdev directories are in ${sysfs.path}\n`);
  const plan: Plan = {
    devices,
    present: options.present,
    roundTrip: options.roundTrip === true,
    segmentation: options.segmentation,
    dataFds: options.present === 'v1' ? undefined : dataFdWindow(),
    onError: options.onError,
    reportFd: reportFd === undefined ? undefined : Number(reportFd),
    trace: options.trace === undefined ? undefined : resolve(options.trace),
    sysfs,
  };
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    VFIO_SHIM_SYSFS: sysfs.path,
    VFIO_SHIM_DEVICES: devices.map((device) => `${groupPath(device)}=${device.name}`).join(' '),
  };
  Reflect.deleteProperty(env, REPORT_FD);
  launch(plan, command, env);
}

function checkWritable(file: string): void {
  try {
    closeSync(openSync(file, 'a'));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `--trace ${file}: ${why}`, { cause: error });
  }
}

function planned(options: RunOptions): Plan['devices'] {
  if (options.device.length === 0) {
    throw new ShimError('ERR_ARGUMENT', 'run: give at least one --device, e.g. --device qat');
  }
  if (options.device.length > MAX_EMULATED) {
    throw new ShimError('ERR_ARGUMENT', `run: at most ${MAX_EMULATED} devices, ${options.device.length} were given`);
  }
  const bad = (): ShimError =>
    new ShimError('ERR_ARGUMENT', `--data-size ${options.dataSize}: is not a size, e.g. 16M`);
  const dataSize = parseSize(options.dataSize, bad);
  if (dataSize < 4096 || dataSize % 4096 !== 0 || dataSize > 2 ** 30) {
    throw new ShimError('ERR_ARGUMENT', `--data-size ${options.dataSize}: is not a multiple of 4096 up to 1G`);
  }
  return options.device.map((text, n) => planDevice(n, text, parseSpec(text), dataSize));
}

function collect(value: string, previous: readonly string[]): string[] {
  return [...previous, value];
}

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGWINCH'] as const;

/**
 * Runs this command once more as the process that becomes the target, waits for it and for the last supervisor, prints
 * the reports and ends as the target did.
 */
async function runAndReport(): Promise<void> {
  const child = spawn(process.execPath, process.argv.slice(1), {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...process.env, [REPORT_FD]: '3' },
  });
  for (const signal of FORWARDED) process.on(signal, () => child.kill(signal));
  const pieces: Buffer[] = [];
  child.stdio[3]?.on('data', (piece: Buffer) => pieces.push(piece));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...how) => resolve(how));
  });
  process.stdout.write(Buffer.concat(pieces));
  if (signal === null) {
    process.exitCode = code ?? 1;
    return;
  }
  process.exitCode = 128 + constants.signals[signal];
  for (const forwarded of FORWARDED) process.removeAllListeners(forwarded);
  process.kill(process.pid, signal);
}
