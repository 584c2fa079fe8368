import { V2, type V2State, type V2StateName } from '../../src/v2/states.ts';
import { hex } from './bytes.ts';
import { vector } from './vectors.ts';

/** What the real mtty driver of Linux 6.12 answered to a probe program. */
export const mttyLog: string = vector('mtty-linux-6.12-probe.txt').replaceAll('\r', '');

export interface MatrixRow {
  readonly from: V2State;
  readonly to: number;
  /** `OK` or an errno. */
  readonly result: string;
  /** Whether a data fd came back; undefined if the call failed. */
  readonly fd: boolean | undefined;
  readonly now: V2State;
  readonly dataSize: number;
  /** Whether a data fd was open in `from`. */
  readonly hadFd: boolean;
  readonly line: string;
}

const row =
  /^ {2}(?<from>\w+) +-> (?<to>\w+|\(8\)) +ret=(?<ret>0|-1 \w+) data_fd=(?<fd>FD|-1|n\/a) now=(?<now>\w+) dsize=(?<dsize>\d+)(?<had> \[cur had fd\])?$/;

/** Every row of every transition matrix in the log. */
export function matrixRows(): MatrixRow[] {
  return mttyLog.split('\n').flatMap((line) => {
    const groups = row.exec(line)?.groups;
    if (groups === undefined) return [];
    const { from = '', to = '', ret = '', fd = '', now = '', dsize = '', had } = groups;
    return [
      {
        from: V2[from as V2StateName],
        to: to === '(8)' ? 8 : V2[to as V2StateName],
        result: ret === '0' ? 'OK' : ret.slice(3),
        fd: fd === 'n/a' ? undefined : fd === 'FD',
        now: V2[now as V2StateName],
        dataSize: Number(dsize),
        hadFd: had !== undefined,
        line: line.trim(),
      },
    ];
  });
}

/** The bytes of a line such as `precopy bytes[24]: 4e2c3e8c ...`. */
export function loggedBytes(what: string): Uint8Array {
  const match = new RegExp(`^${what} bytes\\[(\\d+)\\]: ([0-9a-f ]+)$`, 'm').exec(mttyLog);
  const bytes = hex(match?.[2] ?? '');
  if (bytes.length === 0 || bytes.length !== Number(match?.[1])) throw new Error(`the log has no bytes of ${what}`);
  return bytes;
}

/** Lines of the log, asserted to be there, that a test replays by hand. */
export function logged(line: string): string {
  if (!mttyLog.includes(line)) throw new Error(`the log does not say: ${line}`);
  return line;
}
