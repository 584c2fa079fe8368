import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { LabEvent } from '../events.ts';
import type { GuestRun } from './guest.ts';
import { Unavailable } from '../unavailable.ts';
import { GUEST_KINDS, type GuestKind } from './qemu.ts';
import type { Report } from './report.ts';

const JOBS = fileURLToPath(new URL('../jobs', import.meta.url));

/** Jobs that take minutes, or need what others do not: `--all` leaves them out. */
const LONG: ReadonlySet<string> = new Set([
  'arm64',
  'arm64-16k',
  'check',
  'dirty-pages-long',
  'drafts-killed',
  'harassed',
  'iommufd-crossings',
  'iommufd-drivers',
  'iommufd-handed-over',
  'iommufd-newest',
  'libvirt',
  'libvirt-crossing',
  'libvirt-newest',
  'libvirt-session',
  'libvirt-soak',
  'newest-kernel',
  'soak',
  'speed',
]);

/** Jobs whose guest is not a stock one. */
const KINDS: ReadonlyMap<string, GuestKind> = new Map([
  ['dma-log', 'reporting'],
  ['type1', 'reporting'],
  ['dma-migration', 'reporting'],
  ['dirty-pages', 'reporting'],
  ['dirty-pages-long', 'reporting'],
  ['iommufd', 'iommufd'],
  ['iommufd-crossings', 'iommufd'],
  ['iommufd-drivers', 'iommufd'],
  ['iommufd-handed-over', 'iommufd'],
  ['iommufd-newest', 'newest-qemu'],
  ['newest-kernel', 'newest-kernel'],
  ['libvirt', 'libvirt'],
  ['libvirt-session', 'libvirt'],
  ['libvirt-soak', 'namespaces'],
  ['linux-guest', 'linux'],
  ['libvirt-crossing', 'libvirt-crossing'],
  ['libvirt-newest', 'libvirt-newest'],
  ['arm64', 'arm64'],
  ['arm64-16k', 'arm64-16k'],
]);

const kindOf = (job: string): GuestKind => KINDS.get(job) ?? 'stock';

/** The names of all jobs, or of those that do not take long. */
export function allJobs(long = true): string[] {
  return readdirSync(JOBS)
    .filter((name) => name.endsWith('.ts'))
    .map((name) => name.slice(0, -'.ts'.length))
    .filter((name) => long || !LONG.has(name))
    .toSorted();
}

/**
 * Runs jobs in as few boots as there can be: one for each kind of guest, and another for the rest after each guest that broke. With
 * `apart`, one boot for each. A guest that breaks fails the job that it ran, or ran last, whatever that job's checks said.
 */
export async function runJobs(names: readonly string[], apart: boolean, report: Report, boot: Boot): Promise<void> {
  for (const kind of GUEST_KINDS) {
    const jobs = names.filter((name) => kindOf(name) === kind);
    try {
      await runJobsOf(kind, jobs, apart, report, boot);
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      report.unavailable(jobs, error.message);
    }
  }
}

type Boot = (kind: GuestKind, jobs: readonly string[], onevent: (event: LabEvent) => void) => Promise<GuestRun>;

async function runJobsOf(
  kind: GuestKind,
  names: readonly string[],
  apart: boolean,
  report: Report,
  boot: Boot,
): Promise<void> {
  let rest = [...names];
  while (rest.length > 0) {
    const batch = apart ? rest.slice(0, 1) : rest;
    let begun: string | undefined;
    const { problem, log } = await boot(kind, batch, (event) => {
      if (event.type === 'check') report.check(event);
      else if (event.type === 'note') report.note(event);
      else begun = event.job;
    });
    if (problem === undefined && begun === batch.at(-1)) {
      rest = rest.slice(batch.length);
      continue;
    }
    report.fail(begun ?? batch[0] ?? '', problem ?? 'the guest ended before its jobs did');
    report.quote(log);
    if (begun === undefined) {
      for (const job of rest.slice(1)) report.fail(job, 'no guest to run it in');
      return;
    }
    rest = rest.slice(rest.indexOf(begun) + 1);
  }
}
