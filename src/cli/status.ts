import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { hasErrno } from '../error.ts';
import type { Status } from '../interpose/process/status.ts';
import { print } from './output.ts';
import { askStatus } from './status-client.ts';
import { lineOf, tableOf } from './status-text.ts';

interface Options {
  readonly follow?: true;
  readonly json?: true;
}

export function add(program: Command): void {
  program
    .command('status')
    .description('how far the migrations of a VMM are that runs under "run --status SOCKET"')
    .argument('<socket>', 'the socket of --status')
    .option('--follow', 'go on until the VMM has ended, with a line that changes in a terminal')
    .option('--json', 'print JSON, with --follow a line each time')
    .addHelpText('after', help)
    .action(async (socket: string, { follow, json }: Options) => {
      const asJson = json === true ? (status: Status): string => `${JSON.stringify(status)}\n` : undefined;
      if (follow === true) await followRun(socket, asJson ?? lineShower(process.stdout));
      else print((asJson ?? tableOf)(await askStatus(socket)));
      if (follow === true && json !== true && process.stdout.isTTY) print('\n');
    });
}

const help = `
DONE is of this migration or the last one. LEFT is what the driver says; STOP-COPY is what it says of stop-and-copy, and DOWNTIME how long that takes
at RATE; DIRTY is how fast the device dirties its state. - is what is not known.

Example:
  vfio-shim status /run/vm.sock --follow`;

/** From one question to the next, in milliseconds. */
const INTERVAL = 500;
/** So often in a row there may be no answer: too many ask, or the run is about to end. */
const IN_VAIN = 5;

/** Asks again and again, until nobody listens any more who did before. */
async function followRun(path: string, show: (status: Status) => string): Promise<void> {
  let status: Status | undefined = await askStatus(path);
  let inVain = 0;
  for (;;) {
    if (status !== undefined) print(show(status));
    await sleep(INTERVAL);
    try {
      status = await askStatus(path);
      inVain = 0;
    } catch (error) {
      if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ECONNREFUSED')) return;
      if (!hasErrno(error, 'EAGAIN') || inVain === IN_VAIN) throw error;
      status = undefined;
      inVain += 1;
    }
  }
}

/** In a terminal the same line each time; elsewhere a line whenever it is another one. */
export function lineShower(to: { readonly isTTY?: boolean; readonly columns?: number }): (status: Status) => string {
  let last = '';
  return (status) => {
    const line = lineOf(status);
    if (to.isTTY === true) return `\r\u001B[K${line.slice(0, widthOf(to.columns))}`;
    if (line === last) return '';
    last = line;
    return `${line}\n`;
  };
}

/** A line that fills the terminal would go on in the next one. `undefined` if it is not known how wide it is. */
function widthOf(columns = 0): number | undefined {
  return columns > 1 ? columns - 1 : undefined;
}
