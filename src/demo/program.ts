import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { ERROR_CODES, ShimError, type ErrorCode } from '../error.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { within } from './deadline.ts';

export interface ProgramOptions {
  /** How the program is called in messages. */
  readonly name: string;
  /** Its descriptor 0: none, a fresh socket whose other end is `socket`, or the other end of another program's. */
  readonly stdin?: 'ignore' | 'pipe' | Writable;
  readonly onOutput?: (line: string) => void;
  /** Returns true where the line is no complaint. */
  readonly onError?: (line: string) => boolean;
}

/** How many lines of standard error are kept to tell what went wrong. */
const KEPT = 40;

/** A program in a session of its own, so that all its processes can be ended at once. Output is handed on by lines. */
export class Program {
  readonly name: string;
  /** Fulfilled when it and everything that shares its output has ended: true where it succeeded. */
  readonly ended: Promise<boolean>;
  readonly #child: ChildProcess;
  readonly #complaints: string[] = [];
  #fate: string | undefined;

  constructor(command: readonly string[], options: ProgramOptions) {
    const [file = '', ...args] = command;
    this.name = options.name;
    this.#child = spawn(file, args, { detached: true, stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'] });
    const onError = (line: string): void => {
      if (options.onError?.(line) === true) return;
      this.#complaints.push(line);
      this.#complaints.splice(0, this.#complaints.length - KEPT);
    };
    const { stdout, stderr } = this.#child;
    const read = [byLines(stdout, options.onOutput ?? (() => {})), byLines(stderr, onError)];
    const closed = new Promise<string>((resolve) => {
      this.#child.once('error', (error) => resolve(error.message));
      this.#child.once('close', (code, signal) => resolve(signal ?? `exit status ${code}`));
    });
    this.ended = Promise.all([closed, ...read]).then(([how]) => {
      this.#fate = how;
      return how === 'exit status 0';
    });
  }

  /** The other end of its descriptor 0, where that is a `pipe`. */
  get socket(): Writable {
    if (this.#child.stdin === null) throw new Error(`${this.name} has no pipe`);
    return this.#child.stdin;
  }

  /** Waits until it has ended with status 0; any other end is an error that quotes it. */
  async succeed(ms: number): Promise<void> {
    if (!(await within(this.ended, ms, `${this.name}: the end of the process`))) throw this.failure();
  }

  /** What a program that has ended has to say for itself; `undefined` while it runs. */
  get fate(): string | undefined {
    return this.#fate;
  }

  failure(): ShimError {
    const lines = this.#complaints.filter((line) => line.trim() !== '');
    const line = lines.findLast((candidate) => candidate.startsWith(OURS)) ?? lines.at(-1);
    if (line === undefined) return new ShimError('ERR_TARGET', `${this.name}: ended with ${this.#fate}`);
    return asError(this.name, line);
  }

  /** SIGKILL to all its processes. */
  kill(): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#fate !== undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  /** This process does not wait for it any longer. */
  forget(): void {
    for (const stream of [this.#child.stdin, this.#child.stdout, this.#child.stderr]) stream?.destroy();
    this.#child.unref();
  }
}

const OURS = 'vfio-shim: ';

/** The error that a line such as `vfio-shim: MESSAGE [CODE, ERRNO]` told of, as far as it can be told. */
function asError(name: string, line: string): ShimError {
  const [, message = line, code = '', errno] = /^(.*?)(?: \[(ERR_\w+)(?:, (\w+))?\])?$/.exec(line) ?? [];
  const known = (ERROR_CODES as readonly string[]).includes(code) ? (code as ErrorCode) : 'ERR_TARGET';
  const who = known === 'ERR_KERNEL_FEATURE' ? 'the demo cannot run here' : name;
  const text = `${who}: ${message.startsWith(OURS) ? message.slice(OURS.length) : message}`;
  return new ShimError(known, text, errno === undefined ? {} : { errno: errno as ErrnoName });
}

async function byLines(stream: Readable | null, onLine: (line: string) => void): Promise<void> {
  if (stream === null) return;
  await once(createInterface({ input: stream }).on('line', onLine), 'close');
}
