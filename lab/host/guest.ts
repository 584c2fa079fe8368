import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EVENTS, JOBS, type LabEvent } from '../events.ts';
import { guestCommand, type Guest } from './qemu.ts';

/** What a kernel says when it is broken. */
const BROKEN = /^.*(\bBUG: |\bOops\b|Kernel panic|general protection fault|Internal error).*$/m;

export interface GuestRun {
  /** Why the guest did not come to its end; `undefined` if it did. */
  readonly problem?: string;
  /** What the kernel and the runner printed. */
  readonly log: string;
}

export interface Limits {
  /** Until the first job begins. */
  readonly bootMs: number;
  /** Without news from the guest thereafter. */
  readonly silenceMs: number;
}

/**
 * Boots a guest by `command`, which runs these jobs and powers off; calls `onevent` for everything it tells. `serial` is the file of its
 * console, if it has one. setpriv(1) has the guest killed when this process ends, however that happens.
 */
export async function runGuest(
  command: readonly string[],
  { results, serial }: { readonly results: string; readonly serial: string },
  jobs: readonly string[],
  limits: Limits,
  onevent: (event: LabEvent) => void,
): Promise<GuestRun> {
  writeFileSync(join(results, JOBS), JSON.stringify(jobs));
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaints = '';
  const state: { ended?: string } = {};
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  const gone = new Promise<void>((resolve) => {
    child.once('error', (error) => resolve(void (state.ended = error.message)));
    child.once('close', (code, signal) =>
      resolve(void (state.ended = code === 0 ? '' : `it ended with ${signal ?? code}`)),
    );
  });

  const news = new EventReader(join(results, EVENTS));
  let deadline = Date.now() + limits.bootMs;
  let late: string | undefined;
  while (state.ended === undefined) {
    await Promise.race([gone, sleep(200)]);
    for (const event of news.read()) {
      deadline = Date.now() + limits.silenceMs;
      onevent(event);
    }
    if (Date.now() > deadline && late === undefined) {
      const [what, ms] = news.any ? ['was silent', limits.silenceMs] : ['did not boot', limits.bootMs];
      late = `the guest ${what} for ${ms / 1000} s`;
      child.kill('SIGKILL');
    }
  }
  for (const event of news.read()) onevent(event);

  const console = textOf(serial).replaceAll('\r', '');
  const log = `${console}${textOf(join(results, 'runner.log'))}${complaints}`;
  const status = textOf(join(results, 'status')).trim();
  const unfinished = status === '0' ? undefined : `the runner ended with ${status === '' ? 'no status' : status}`;
  const problem = BROKEN.exec(console)?.[0] ?? late ?? (state.ended === '' ? unfinished : state.ended);
  return problem === undefined ? { log } : { log, problem };
}

/** A console in the guest, on this terminal, until it is left. */
export async function openShell(
  guest: Guest,
  options: { readonly project: string; readonly results: string },
): Promise<void> {
  const command = guestCommand(guest, { ...options, serial: 'stdio', append: 'lab.shell' });
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], { stdio: 'inherit' });
  await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
}

function textOf(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/** Follows the file of events. */
class EventReader {
  /** True once there was one. */
  any = false;
  readonly #file: string;
  #at = 0;
  #rest = Buffer.alloc(0);

  constructor(file: string) {
    this.#file = file;
  }

  /** The events since the last time; a line that is not complete waits. */
  read(): LabEvent[] {
    if (!existsSync(this.#file)) return [];
    const fd = openSync(this.#file, 'r');
    const chunk = Buffer.alloc(1 << 20);
    try {
      for (let size; (size = readSync(fd, chunk, 0, chunk.length, this.#at)) > 0; this.#at += size) {
        this.#rest = Buffer.concat([this.#rest, chunk.subarray(0, size)]);
      }
    } finally {
      closeSync(fd);
    }
    const end = this.#rest.lastIndexOf('\n') + 1;
    const lines = this.#rest.toString('utf8', 0, end).split('\n').slice(0, -1);
    this.#rest = this.#rest.subarray(end);
    this.any ||= lines.length > 0;
    return lines.map((line) => JSON.parse(line) as LabEvent);
  }
}
