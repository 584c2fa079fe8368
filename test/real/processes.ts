import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A child in a session of its own, whose output is kept. */
export class Child {
  stdout = '';
  stderr = '';
  exit: Exit | undefined;
  readonly command: readonly string[];
  /** Settles when the process has ended and its output is complete. */
  readonly exited: Promise<Exit>;
  readonly #process: ChildProcess;

  constructor(command: readonly string[], env: NodeJS.ProcessEnv) {
    const [file = '', ...args] = command;
    this.command = command;
    this.#process = spawn(file, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process.stdout?.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve) => {
      this.#process.once('error', (error) => {
        this.stderr += `${error.message}\n`;
        resolve((this.exit = { code: 127, signal: null }));
      });
      this.#process.once('exit', (code, signal) => (this.exit = { code, signal }));
      this.#process.once('close', (code, signal) => resolve((this.exit = { code, signal })));
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** The end of the process in words; `undefined` while it runs. */
  get fate(): string | undefined {
    if (this.exit === undefined) return undefined;
    const how = this.exit.signal === null ? `exit code ${this.exit.code}` : `signal ${this.exit.signal}`;
    return `process ended with ${how}${this.stderr === '' ? '' : `: ${this.stderr.trim().slice(-2000)}`}`;
  }
}

export interface FoundProcess {
  readonly pid: number;
  readonly executable: string;
  readonly commandLine: string;
}

/** The environment variable that marks everything a test bed starts, and what those processes start in turn. */
export const MARK = 'VFIO_SHIM_TEST_BED';

/** Processes whose environment carries the mark, or that live in one of these sessions. Zombies are not counted. */
export function findProcesses(mark: string, sessions: ReadonlySet<number>): FoundProcess[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid)
    .flatMap((pid) => {
      try {
        // proc(5): after the name in parentheses come state, ppid, pgrp, session.
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [state, , , session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        if (state === 'Z' || state === 'X') return [];
        if (!sessions.has(Number(session)) && !isMarked(pid, mark)) return [];
        const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
        return [{ pid, executable: readlinkSync(`/proc/${pid}/exe`), commandLine }];
      } catch {
        return []; // Gone meanwhile, or another user's.
      }
    });
}

function isMarked(pid: number, mark: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`${MARK}=${mark}`);
  } catch {
    return false;
  }
}

/** SIGKILL, to a process that may be gone already. */
export function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
