import { readdirSync, readFileSync } from 'node:fs';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { Mtty } from './mtty.ts';
import { serving } from './serving.ts';

/** What may leak. */
export interface Usage {
  /** Open files of the whole system, and of the program's keeper and supervisor. */
  readonly openFiles: number;
  readonly descriptors: number;
  /** Memory of keeper and supervisor, and what the whole system has left, in MiB. */
  readonly resident: number;
  readonly available: number;
  readonly devices: number;
  /** What lies where temporary files are made. */
  readonly files: readonly string[];
}

const MIB = 1024;

export function usageOf(bed: TestBed, name: string): Usage {
  const pids = [...serving('keeper-main', name), ...serving('supervisor-main', name)];
  const sum = (of: (pid: number) => number): number => pids.reduce((total, pid) => total + of(pid), 0);
  const [openFiles = ''] = readFileSync('/proc/sys/fs/file-nr', 'latin1').split('\t');
  return {
    openFiles: Number(openFiles),
    descriptors: sum((pid) => readdirSync(`/proc/${pid}/fd`).length),
    resident: Math.round(sum((pid) => kibibytes(`/proc/${pid}/status`, 'VmRSS')) / MIB),
    available: Math.round(kibibytes('/proc/meminfo', 'MemAvailable') / MIB),
    devices: Mtty.all().size,
    files: ['/tmp', '/dev/shm', '/run', bed.directory].flatMap((directory) => readdirSync(directory)).toSorted(),
  };
}

function kibibytes(file: string, field: string): number {
  const value = new RegExp(String.raw`^${field}:\s+(\d+) kB$`, 'm').exec(readFileSync(file, 'latin1'))?.[1];
  if (value === undefined) throw new Error(`${file} has no ${field}`);
  return Number(value);
}
