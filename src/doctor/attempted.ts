import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ATTEMPTS, type AttemptLine, type AttemptName, type Outcome } from './outcome.ts';

/** How a program that makes attempts ended, and what it said. */
export interface Ended {
  readonly stdout: string;
  /** In words, e.g. `was ended by SIGSYS`. */
  readonly how: string;
}

const PATIENCE_MS = 20_000;

/** The program beside this one. */
export function startAttempts(names: readonly AttemptName[]): Ended {
  const program = join(import.meta.dirname, 'attempts-main.js');
  const ended = spawnSync(process.execPath, [program, ...names], {
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
    timeout: PATIENCE_MS,
    killSignal: 'SIGKILL',
  });
  return { stdout: ended.stdout ?? '', how: howEnded(ended) };
}

/** How a child ended, in words. */
export function howEnded({
  error,
  signal,
  status,
}: Pick<ReturnType<typeof spawnSync>, 'error' | 'signal' | 'status'>): string {
  if (error !== undefined && 'code' in error && error.code === 'ETIMEDOUT') return 'did not end in time';
  if (error !== undefined) return `could not be started: ${error.message}`;
  return signal === null ? `ended with status ${status}` : `was ended by ${signal}`;
}

/** Has all attempts made. What a sandbox kills its process for is one that failed; the others are made by another process. */
export function attempted(start: (names: readonly AttemptName[]) => Ended = startAttempts): Outcome[] {
  const outcomes: Outcome[] = [];
  for (let left: readonly AttemptName[] = ATTEMPTS; left.length > 0;) {
    const { stdout, how } = start(left);
    const known = linesOf(stdout);
    outcomes.push(...known.filter(({ name }) => left.includes(name)));
    const done = known.at(-1);
    if (done?.name === 'koffi' && done.message !== undefined) return outcomes; // there is nothing to try the others with
    const next = left.find((name) => !outcomes.some((outcome) => outcome.name === name));
    if (next === undefined) return outcomes;
    outcomes.push({ name: next, message: `the process that tried it ${how}` });
    if (next === 'koffi') return outcomes;
    left = left.slice(left.indexOf(next) + 1);
  }
  return outcomes;
}

/** What came of those that ended. */
function linesOf(stdout: string): Outcome[] {
  const lines = stdout.split('\n').slice(0, -1); // the last is empty, or cut short
  return lines.map((line) => JSON.parse(line) as AttemptLine).flatMap((line) => ('end' in line ? [line.end] : []));
}
