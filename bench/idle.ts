import { setTimeout as sleep } from 'node:timers/promises';
import { poll, within } from '../src/vmm/deadline.ts';
import { MarkedChild } from '../tools/vmm/marked-child.ts';
import { threadsOf } from '../tools/vmm/threads.ts';
import type { Benchmark } from './benchmark.ts';
import type { Sample } from './paired.ts';
import { compile, interposed } from './programs.ts';

/** So long a program that does nothing is looked at, in milliseconds. */
const WINDOW = 10_000;
/** By then a rehearsal, and Node's own housekeeping after a start, have ended. */
const SETTLING = 120_000;

/** What a process has done so far. */
interface Activity {
  readonly switches: number;
  readonly nanoseconds: number;
}

function activityOf(pid: number): Activity {
  const threads = threadsOf(pid);
  return {
    switches: threads.reduce((sum, { switches }) => sum + switches, 0),
    nanoseconds: threads.reduce((sum, { time }) => sum + time, 0),
  };
}

const waitsForEver = (pid: number): boolean => threadsOf(pid).every((thread) => thread.waitsForEver);

/** What processes do in a window, once they have come to rest: how often they are woken, and their processor time. */
async function rest<K extends string>(processes: Readonly<Record<K, number>>): Promise<Sample> {
  const pids = Object.values<number>(processes);
  await poll(() => (pids.every(waitsForEver) ? true : undefined), SETTLING, 'processes to come to rest', 200);
  const before = pids.map(activityOf);
  await sleep(WINDOW);
  const after = pids.map(activityOf);
  const perSecond = (key: keyof Activity, n: number): number =>
    ((after[n]?.[key] ?? NaN) - (before[n]?.[key] ?? NaN)) / (WINDOW / 1000);
  const switches = Object.keys(processes).map((name, n) => [name, perSecond('switches', n)]);
  const nanoseconds = pids.reduce((sum, _, n) => sum + perSecond('nanoseconds', n), 0);
  return { ...Object.fromEntries(switches), time: nanoseconds / 1000 };
}

/** Runs a program that says when it has nothing more to do, and ends with its input. */
async function whileIdle(command: readonly string[], look: (child: MarkedChild) => Promise<Sample>): Promise<Sample> {
  const child = new MarkedChild(command, { stdin: 'pipe' });
  try {
    const idles = (): true | undefined => (child.stdout.includes('"bench":"idle-client"') ? true : undefined);
    await poll(idles, SETTLING, () => `idle-client to open its device${child.lastWords}`);
    const sample = await look(child);
    child.stdin.end();
    await within(child.exited, SETTLING, 'idle-client to end');
    return sample;
  } finally {
    await child.leftBehind(SETTLING);
  }
}

function pidOf(child: MarkedChild, program: string): number {
  const found = child.processes().find(({ commandLine }) => commandLine.includes(`/${program}.js`));
  if (found === undefined) throw new Error(`idle-client has no ${program}${child.lastWords}`);
  return found.pid;
}

const target = { bound: 'at most', value: 0 } as const;

export const idle: Benchmark = {
  name: 'idle',
  about: `keeper and supervisor of a program that does nothing for ${WINDOW / 1000} s, against the program itself`,
  rounds: 2,
  rows: [
    { key: 'supervisor', title: 'idle: the supervisor is woken', unit: '/s', compare: 'difference', target },
    { key: 'keeper', title: 'idle: the keeper is woken', unit: '/s', compare: 'difference', target },
    { key: 'time', title: 'idle: processor time of both', unit: 'us/s', compare: 'difference', target },
  ],
  prepare({ cli }) {
    const command = interposed(cli, ['--device', 'qat'], [compile('idle-client')]);
    return {
      ours: () =>
        whileIdle(command, (child) =>
          rest({ supervisor: pidOf(child, 'supervisor-main'), keeper: pidOf(child, 'keeper-main') }),
        ),
      baseline: () =>
        whileIdle(command, async ({ pid = -1 }) => {
          const { program = NaN, time = NaN } = await rest({ program: pid });
          return { supervisor: program, keeper: program, time };
        }),
    };
  },
};
