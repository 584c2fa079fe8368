import { spawn } from 'node:child_process';
import { appendFileSync, chmodSync, mkdirSync, openSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { killHard } from '../../src/vmm/child.ts';
import { EVENTS, JOBS, REPORT_FD, RESULTS, type CheckEvent, type LabEvent, type NoteEvent } from '../events.ts';
import { Mtty } from './mtty.ts';

/** Runs jobs one after the other, each in a process of its own, and leaves no process and no device of theirs. */

const LAST_WORDS = 4000;
/** Everything is emulated here, and the machine may be busy: how many times as long jobs wait. */
const [, PATIENCE = '3'] = /\blab\.patience=(\d+)/.exec(readFileSync('/proc/cmdline', 'latin1')) ?? [];

function tell(event: LabEvent): void {
  appendFileSync(join(RESULTS, EVENTS), `${JSON.stringify(event)}\n`);
}

async function runJob(job: string): Promise<void> {
  const directory = join(RESULTS, job);
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o777);
  const output = openSync(join(directory, 'output'), 'a');
  const file = fileURLToPath(new URL(`../jobs/${job}.js`, import.meta.url));
  const child = spawn(process.execPath, [file], {
    stdio: ['ignore', output, output, 'pipe'],
    env: { ...process.env, VFIO_SHIM_LAB_JOB: job, VFIO_SHIM_LAB_RESULTS: directory, VFIO_SHIM_PATIENCE: PATIENCE },
  });
  const checks: CheckEvent[] = [];
  createInterface({ input: child.stdio[REPORT_FD] as Readable }).on('line', (line) => {
    const event = JSON.parse(line) as CheckEvent | NoteEvent;
    if (event.type === 'check') checks.push(event);
    tell(event);
  });
  const how = await new Promise<string | number | null>((resolve, reject) => {
    child.once('error', reject).once('close', (code, signal) => resolve(signal ?? code));
  });
  const failed = checks.some(({ why }) => why !== undefined);
  const log = readFileSync(join(directory, 'output'), 'utf8').slice(-LAST_WORDS);
  const fail = (why: string): void => tell({ type: 'check', job, name: 'the job itself', ms: 0, why, log });
  if (how !== 0 && !failed) fail(`it ended with ${how}`);
  if (checks.length === 0) fail('it made no check');
  const left = killOthers();
  if (left.length > 0) fail(`processes outlived it: ${left.join('; ')}`);
  Mtty.removeAllBut();
}

/** Kills everything but this process and what it runs under, whose command lines it returns. Kernel threads have none. */
function killOthers(): string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && ![1, process.pid, process.ppid].includes(Number(entry)))
    .flatMap((pid) => {
      const commandLine = commandLineOf(pid);
      if (commandLine === '') return [];
      killHard(Number(pid));
      return [commandLine];
    });
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
  } catch {
    return ''; // gone meanwhile
  }
}

const named = process.argv.slice(2);
const jobs = named.length > 0 ? named : (JSON.parse(readFileSync(join(RESULTS, JOBS), 'utf8')) as string[]);
for (const job of jobs) {
  tell({ type: 'job', job });
  await runJob(job);
  tell({ type: 'end', job });
}
