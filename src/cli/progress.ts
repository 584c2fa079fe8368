import { Presets, SingleBar } from 'cli-progress';
import type { TransferControl } from './transfer-control.ts';

export interface Progress {
  /** A line beside the bar. */
  note(line: string): void;
  stop(): void;
}

const MIB = 2 ** 20;
const INTERVAL = 100;

/** A bar for people; nothing where no terminal is there to show it. */
export function showProgress(title: string, control: TransferControl, stream: NodeJS.WriteStream): Progress {
  if (!stream.isTTY) return { note: (line) => void stream.write(line), stop: () => {} };
  const bar = new SingleBar(
    {
      format: '{step} {bar} {percentage}% | {value} of {total} MiB',
      stream,
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false, // signals are ours
    },
    Presets.shades_classic,
  );
  let drawn = false;
  const draw = (): void => {
    const { total, done } = control;
    if (total === 0) return; // nothing is known yet
    const step = { step: control.checking ? 'check file' : title };
    if (!drawn) bar.start(mib(total), mib(done), step);
    drawn = true;
    bar.setTotal(mib(total));
    bar.update(mib(done), step);
  };
  const timer = setInterval(draw, INTERVAL);
  return {
    note(line) {
      stream.write(drawn ? `\r\u001B[K${line}` : line);
    },
    stop() {
      clearInterval(timer);
      if (drawn) bar.stop();
    },
  };
}

function mib(bytes: number): number {
  return Math.round((bytes / MIB) * 10) / 10;
}
