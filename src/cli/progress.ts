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
      format: `${title} {bar} {percentage}% | {value} of {total} MiB`,
      stream,
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false, // signals are ours
    },
    Presets.shades_classic,
  );
  const draw = (): void => {
    bar.setTotal(mib(control.total));
    bar.update(mib(control.done));
  };
  bar.start(0, 0);
  const timer = setInterval(draw, INTERVAL);
  const erase = (): void => void stream.write('\r\u001B[K');
  return {
    note(line) {
      erase();
      stream.write(line);
    },
    stop() {
      clearInterval(timer);
      bar.stop();
    },
  };
}

function mib(bytes: number): number {
  return Math.round((bytes / MIB) * 10) / 10;
}
