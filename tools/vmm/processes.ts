import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';

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

/** Waits until none is found, for so long at most; returns those that still are. */
export function stragglers(find: () => FoundProcess[], graceMs: number): Promise<FoundProcess[]> {
  return poll(() => (find().length === 0 ? [] : undefined), graceMs, '').catch(find);
}

function isMarked(pid: number, mark: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`${MARK}=${mark}`);
  } catch {
    return false;
  }
}
