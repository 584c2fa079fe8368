import { spawn, type ChildProcess } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { readLines } from './lines.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Its descriptor 0: none, a fresh socket whose other end is `stdin`, or the other end of another child's. */
  readonly stdin?: 'ignore' | 'pipe' | Writable;
  readonly onOutput?: (line: string) => void;
  readonly onError?: (line: string) => void;
}

/** What the shell says of a command that it cannot start. */
const CANNOT_START = 127;

/** A child in a session of its own, so that all its processes can be ended at once. Its output is kept. */
export class Child {
  stdout = '';
  stderr = '';
  exit: Exit | undefined;
  readonly command: readonly string[];
  /** Settles when the process and everything that shares its output have ended. */
  readonly exited: Promise<Exit>;
  protected readonly process: ChildProcess;
  #ended = false;

  constructor(command: readonly string[], { env, stdin = 'ignore', onOutput, onError }: ChildOptions = {}) {
    const [file = '', ...args] = command;
    this.command = command;
    this.process = spawn(file, args, { env: env ?? process.env, detached: true, stdio: [stdin, 'pipe', 'pipe'] });
    read(this.process.stdout, (text) => (this.stdout += text), onOutput);
    read(this.process.stderr, (text) => (this.stderr += text), onError);
    this.exited = new Promise((resolve) => {
      const end = (exit: Exit): void => {
        this.#ended = true;
        resolve((this.exit = exit));
      };
      this.process.once('error', (error) => {
        this.stderr += `${error.message}\n`;
        end({ code: CANNOT_START, signal: null });
      });
      this.process.once('exit', (code, signal) => (this.exit = { code, signal }));
      this.process.once('close', (code, signal) => end({ code, signal }));
    });
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  /** The other end of its descriptor 0, if that is a `pipe`. */
  get stdin(): Writable {
    if (this.process.stdin === null) throw new Error(`${this.command[0]} has no pipe`);
    return this.process.stdin;
  }

  /** The end of the process in words; `undefined` while it runs. */
  get fate(): string | undefined {
    if (this.exit === undefined) return undefined;
    const how = this.exit.signal === null ? `exit code ${this.exit.code}` : `signal ${this.exit.signal}`;
    return `process ended with ${how}${this.stderr === '' ? '' : `: ${this.stderr.trim().slice(-2000)}`}`;
  }

  /** The last line of its standard error, to go behind what was awaited of it. */
  get lastWords(): string {
    const line = this.stderr.trimEnd().split('\n').at(-1) ?? '';
    return line === '' ? '' : `; its last words: ${line}`;
  }

  /** SIGKILL to all its processes, of which the first may have ended. */
  kill(): void {
    if (this.pid !== undefined && !this.#ended) killHard(-this.pid);
  }

  /** This process does not wait for it any longer. */
  forget(): void {
    for (const stream of [this.process.stdin, this.process.stdout, this.process.stderr]) stream?.destroy();
    this.process.unref();
  }
}

function read(stream: Readable | null, onText: (text: string) => void, onLine?: (line: string) => void): void {
  stream?.setEncoding('utf8').on('data', onText);
  if (stream !== null && onLine !== undefined) stream.once('end', readLines(stream, onLine));
}

/** SIGKILL to a process, or to the group of `-pid`, which may be gone already. */
export function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
