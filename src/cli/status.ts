import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { ShimError } from '../error.ts';
import { parseStatus, type DeviceStatus, type Status } from '../interpose/process/status.ts';
import { fileError } from '../state-file/errors.ts';
import { print } from './output.ts';
import { columns } from './table.ts';

interface Options {
  readonly follow?: true;
  readonly json?: true;
}

export function add(program: Command): void {
  program
    .command('status')
    .description('how far the migrations of a VMM are that runs under "run --status SOCKET"')
    .argument('<socket>', 'the socket of --status')
    .option('--follow', 'go on, with a line that changes in a terminal, until the VMM has ended')
    .option('--json', 'print JSON, with --follow a line each time')
    .addHelpText('after', help)
    .action(async (socket: string, { follow, json }: Options) => {
      const show = json === true ? (status: Status) => `${JSON.stringify(status)}\n` : undefined;
      if (follow === true) await followRun(socket, show ?? lineShower());
      else print((show ?? tableOf)(await ask(socket)));
    });
}

const help = `
DONE is of this migration or the last one. LEFT is what the driver says; STOP-COPY is what it says of stop-and-copy, and DOWNTIME how long that takes
at RATE; DIRTY is how fast the device dirties its state. - is what is not known.

Example:
  vfio-shim status /run/vm.sock --follow`;

/** The longest answer, and how long it may take in milliseconds: more is none of a run. */
const LONGEST = 2 ** 20;
const PATIENCE = 5000;
/** From one question to the next, in milliseconds. */
const INTERVAL = 500;

/** Whoever answers is not known to be a run. Throws `ERR_FILE` if nobody answers, and what parseStatus() throws. */
async function ask(path: string): Promise<Status> {
  return parseStatus(await answerAt(path));
}

async function answerAt(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const client = createConnection(path);
    const refuse = (why: string): void => {
      clearTimeout(patience);
      client.destroy();
      reject(new ShimError('ERR_FILE', `${path}: ${why}`, { errno: 'EIO' }));
    };
    const patience = setTimeout(() => refuse(`no answer in ${PATIENCE / 1000} s`), PATIENCE);
    client.on('data', (piece) => {
      pieces.push(piece);
      length += piece.length;
      if (length > LONGEST) refuse('an answer of more than 1 MiB is none of a run');
    });
    client.on('error', (error) => {
      clearTimeout(patience);
      reject(fileError(path, error) as Error);
    });
    client.on('end', () => {
      if (length === 0) refuse('no answer: too many ask at once, or the run ends');
      clearTimeout(patience);
      resolve(Buffer.concat(pieces).toString());
    });
  });
}

/** Asks again and again, until nobody listens any more who did before. */
async function followRun(path: string, show: (status: Status) => string): Promise<void> {
  print(show(await ask(path)));
  for (;;) {
    await sleep(INTERVAL);
    let status: Status;
    try {
      status = await ask(path);
    } catch (error) {
      if (!hasEnded(error)) throw error;
      if (process.stdout.isTTY) print('\n');
      return;
    }
    print(show(status));
  }
}

function hasEnded(error: unknown): boolean {
  return error instanceof ShimError && (error.errno === 'ENOENT' || error.errno === 'ECONNREFUSED');
}

/** In a terminal the same line each time; elsewhere a line whenever it is another one. */
function lineShower(): (status: Status) => string {
  const { isTTY, columns: width } = process.stdout;
  let last = '';
  return (status) => {
    const line = lineOf(status);
    if (isTTY) return `\r\u001B[K${line.slice(0, width > 1 ? width - 1 : undefined)}`;
    if (line === last) return '';
    last = line;
    return `${line}\n`;
  };
}

function lineOf({ devices }: Status): string {
  if (devices.length === 0) return 'no device so far';
  return devices.map(deviceLine).join('; ');
}

function deviceLine(device: DeviceStatus): string {
  const { phase, bytesDone, bytesLeft, bytesPerSecond, downtimeMs } = device;
  const parts = [`${shown(device.name)} ${shown(device.state ?? '-')}`];
  if (phase !== null) {
    parts.push(bytesLeft === null ? `${mib(bytesDone)} MiB` : `${mib(bytesDone)} MiB, ${mib(bytesLeft)} left`);
    if (bytesPerSecond !== null) parts.push(`${mib(bytesPerSecond)} MiB/s`);
    if (downtimeMs !== null) parts.push(`downtime ${downtimeMs} ms`);
  }
  return parts.join(', ');
}

const HEADINGS = ['DEVICE', 'PROTOCOL', 'STATE', 'DONE', 'LEFT', 'RATE', 'STOP-COPY', 'DOWNTIME', 'DIRTY'];

function tableOf({ devices, takeovers }: Status): string {
  if (devices.length === 0) return 'No device so far.\n';
  const rows = devices.map((device) => [
    shown(device.name),
    device.protocol,
    shown(device.state ?? '-'),
    unit(mib(device.bytesDone), 'MiB'),
    unit(mib(device.bytesLeft), 'MiB'),
    unit(mib(device.bytesPerSecond), 'MiB/s'),
    unit(mib(device.stopCopyBytes), 'MiB'),
    unit(device.downtimeMs, 'ms'),
    unit(mib(device.dirtyBytesPerSecond), 'MiB/s'),
  ]);
  const dead = takeovers === 0 ? '' : `Supervisors that died and were succeeded: ${takeovers}\n`;
  return `${columns([HEADINGS, ...rows])}${dead}`;
}

function mib(bytes: number | null): number | null {
  return bytes === null ? null : Math.round((bytes / 2 ** 20) * 10) / 10;
}

function unit(value: number | null, name: string): string {
  return value === null ? '-' : `${value} ${name}`;
}

/** What somebody else says, without what a terminal would heed. */
function shown(text: string): string {
  return text.replaceAll(/\p{C}/gu, '?');
}
