import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { Mtty } from './mtty.ts';
import { serving } from './serving.ts';

/** What may leak. */
export interface Usage {
  /** Of all other processes, and of the program's keeper and supervisor. */
  readonly openFiles: number;
  readonly descriptors: number;
  /** Memory of keeper and supervisor, and of all other processes, shared pages in parts, in MiB. */
  readonly resident: number;
  readonly proportional: number;
  readonly devices: number;
  /** The programs of all processes. */
  readonly processes: readonly string[];
  /** What lies where files are made. */
  readonly files: readonly string[];
}

const MIB = 1024;

/** Of the program of this name, or of all that are served, and of the files in these directories. */
export function usageOf(directories: readonly string[], name?: string): Usage {
  const pids = [...serving('keeper-main', name), ...serving('supervisor-main', name)];
  const all = processes();
  return {
    openFiles: sum(all, ({ pid }) => unlessGone(() => readdirSync(`/proc/${pid}/fd`).length)),
    descriptors: sum(pids, (pid) => readdirSync(`/proc/${pid}/fd`).length),
    resident: Math.round(sum(pids, (pid) => kibibytes(`/proc/${pid}/status`, 'VmRSS')) / MIB),
    proportional: Math.round(
      sum(all, ({ pid }) => unlessGone(() => kibibytes(`/proc/${pid}/smaps_rollup`, 'Pss'))) / MIB,
    ),
    devices: Mtty.all().size,
    processes: all.map(({ program }) => program).toSorted(),
    files: directories.flatMap((directory) => readdirSync(directory)).toSorted(),
  };
}

/** A usage in a line. */
export function describe({ files, processes, ...rest }: Usage): string {
  return JSON.stringify({ ...rest, processes: processes.length, files: files.length });
}

/**
 * Nothing has grown that would grow on: processes, descriptors and files are the same, memory is about the same. What a Node has
 * resident depends on when it last collected its garbage, as its new space is up to 16 MiB twice, and on how much of a program has been
 * compiled: two of them may differ by 24 MiB at any moment. Of one supervisor that serves on, 40 migrations that leak 0.6 MiB each are
 * found; if each migration has its own, all that they can leave behind is a file, a descriptor or memory of somebody else.
 */
export function assertNoLeak(warm: Usage, end: Usage): void {
  assert.deepEqual(end.files, warm.files);
  assert.deepEqual(end.processes, warm.processes);
  assert.equal(end.devices, warm.devices);
  assert.equal(end.descriptors, warm.descriptors);
  assert.ok(end.openFiles <= warm.openFiles + 8, 'descriptors of all processes');
  assert.ok(end.resident <= warm.resident + 24, 'memory of keeper and supervisor');
  assert.ok(end.proportional <= warm.proportional + 64, 'memory of all processes');
}

interface Process {
  readonly pid: string;
  readonly program: string;
}

/** Each that has a command line, which threads of the kernel have not; without this one, which remembers its checks. */
function processes(): Process[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .flatMap((pid) => {
      try {
        const [program = ''] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return program === '' ? [] : [{ pid, program }];
      } catch {
        return []; // gone meanwhile
      }
    });
}

/** What a process has; 0 if it ends meanwhile. */
function unlessGone(measure: () => number): number {
  try {
    return measure();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return 0;
    throw error;
  }
}

function sum<T>(things: readonly T[], of: (thing: T) => number): number {
  return things.reduce((total, thing) => total + of(thing), 0);
}

function kibibytes(file: string, field: string): number {
  const value = new RegExp(String.raw`^${field}:\s+(\d+) kB$`, 'm').exec(readFileSync(file, 'latin1'))?.[1];
  if (value === undefined) throw new Error(`${file} has no ${field}`);
  return Number(value);
}
