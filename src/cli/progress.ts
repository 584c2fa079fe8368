import { SingleBar } from 'cli-progress';
import { say } from './output.ts';
import type { TransferControl } from './transfer-control.ts';

export interface Progress {
  /** A line beside the bar. */
  note(line: string): void;
  stop(): void;
}

const MIB = 2 ** 20;
const INTERVAL = 100;
const WIDTH = 40;
const TURNING = ['|', '/', '-', '\\'];

/** What is being done, for people, from the beginning to the end; nothing if no terminal is there to show it. */
export function showProgress(control: TransferControl, terminal: NodeJS.WriteStream | undefined): Progress {
  if (terminal === undefined) return { note: say, stop: () => {} };
  terminal.on('error', () => {}); // a terminal that is gone shows nothing: what is done goes on
  let drawn = 0;
  const bar = new SingleBar({
    format: () => line(control, (drawn += 1)),
    stream: terminal,
    fps: 1000 / INTERVAL,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false, // signals are ours
  });
  bar.start(1, 0);
  return {
    note: (text) => say(`\r\u001B[K${text}`),
    stop: () => bar.stop(),
  };
}

/** A bar if it is known how much there is; else a sign that turns, and how much has been done. */
function line({ step, done, total }: TransferControl, drawn: number): string {
  if (total === 0) {
    const sofar = done === 0 ? '' : ` ${mib(done)} MiB so far`;
    return `${step} ${TURNING[drawn % TURNING.length]}${sofar}`;
  }
  const filled = Math.floor((done / total) * WIDTH);
  const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
  return `${step} ${bar} ${Math.floor((done / total) * 100)}% | ${mib(done)} of ${mib(total)} MiB`;
}

function mib(bytes: number): number {
  return Math.round((bytes / MIB) * 10) / 10;
}
