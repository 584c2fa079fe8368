import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { POLLHUP } from '../../abi/fcntl.ts';
import { createSharedMemory, mapSharedMemory } from '../../sys/memory.ts';
import { PollSet } from '../../sys/poll.ts';
import { becomeSessionLeader } from '../../sys/process.ts';
import { removeSocketFile } from '../../sys/socket-file.ts';
import { receiveFd, socketPair } from '../../sys/socket.ts';
import { JournalLayout } from '../memory/journal.ts';
import { logTo, messageOf, warn } from '../run/log.ts';
import { fdStoreCount, firstFreeFd, sharedFiles } from '../memory/inherited.ts';
import { RecordingRing } from '../memory/recording-ring.ts';
import { handOn, LAUNCHER_FD, parsePlan, placesOf, type Plan } from '../run/plan.ts';
import { beginRecording } from './recorder.ts';
import { NODE, SupervisorProgram } from './supervisor-program.ts';
import { removeSysfs } from './sysfs.ts';
import { logOf } from './target-stderr.ts';

/*
 * The keeper: holds what a supervisor must not take with it when it dies (the listener, the shared memory, the program), and
 * starts a successor when one dies. It ends when a supervisor has ended by itself, which is after the target, and when no
 * supervisor can be had: that closes the listener, and from then on the target's trapped calls fail with ENOSYS.
 */

/** After a supervisor that served and lived longer, in milliseconds, the next one starts without a pause. */
const SETTLED = 500;
/**
 * If a supervisor has served, the keeper always starts the next one: the target's calls wait for it, as long as the target
 * lives. Of supervisors that have not, it tries this many in a row, with pauses of so many milliseconds at most.
 */
const LIMITS = {
  /** It ended before it could serve: so will the next, unless the machine was to blame. */
  died: { tries: 10, pause: 250 },
  /** The system had no process for it, or no memory, which passes: about a minute. */
  absent: { tries: 64, pause: 1000 },
} as const;

/** How a supervisor ended: by itself, or it `died`, or was `absent`; and in words why. */
interface Fate {
  readonly kind: 'done' | 'died' | 'absent';
  /** As a signal's name, or its exit status. */
  readonly how: string;
  readonly why: string;
}

/** What is kept for supervisors, from the listener on, by the numbers that it has here. */
interface Kept {
  readonly fds: readonly [listener: number, ...others: number[]];
  readonly begun: Uint8Array;
  /** The lines of a recording. */
  readonly ring: () => RecordingRing;
  readonly journal: Uint8Array;
  readonly program: SupervisorProgram;
}

/** Runs the keeper, with the plan that the launcher passed on. */
export async function start(text: string | undefined): Promise<void> {
  const plan = parsePlan(text);
  logTo(logOf(plan));
  becomeSessionLeader();
  process.chdir('/');
  try {
    const kept = prepare(plan);
    if (kept !== undefined) await superviseAndRecord(plan, kept);
  } catch (error) {
    warn(`keeper: ${messageOf(error)}`);
  }
  if (plan.status !== undefined) removeSocketFile(plan.status.path, plan.status.identity);
  removeSysfs(plan);
  process.exit(0);
}

/** Makes, and waits for, all that a run needs; `undefined` if the launcher gave up, which has said why. */
function prepare(plan: Plan): Kept | undefined {
  const layout = new JournalLayout(placesOf(plan));
  const files = sharedFiles(plan, layout.size).map(({ name, size }) => createSharedMemory(name, size).number);
  const fdStores = Array.from({ length: fdStoreCount(plan) }, () => socketPair().map(({ number }) => number)).flat();
  const journal = mapSharedMemory(files[0] ?? -1, layout.size).bytes;
  const begun = layout.begun(journal);
  const ring = (): RecordingRing => new RecordingRing(layout.recording(journal));
  const program = new SupervisorProgram();
  const listener = receiveFd(LAUNCHER_FD);
  return listener && { fds: [listener.number, ...files, ...fdStores], begun, ring, journal, program };
}

async function superviseAndRecord(plan: Plan, kept: Kept): Promise<void> {
  const { plan: given, recorder } = beginRecording(plan, kept.ring);
  const { status, ...fds } = given.fds;
  const takeovers = { count: 0 };
  if (status !== undefined) {
    const { answerStatus } = await import('./status-answer.ts');
    answerStatus(status, given, kept.journal, takeovers);
  }
  try {
    await superviseToTheEnd({ ...given, fds: { ...fds, status: undefined } }, kept, (how) => {
      takeovers.count += 1;
      recorder?.takeover(how);
    });
  } finally {
    await recorder?.finish();
  }
}

/** Has one supervisor after the other until the target has ended, or none can be had. Tells of each that died, and how. */
async function superviseToTheEnd(given: Plan, kept: Kept, takeover: (how: string) => void): Promise<void> {
  const { begun } = kept;
  let plan = given;
  let pause = 0;
  let inVain = 0;
  let said = '';
  for (;;) {
    const isLast = isDeserted(kept.fds[0]);
    const { report, lastWords } = plan.fds;
    if (isLast && report === undefined && lastWords === undefined) return; // otherwise somebody waits for what it has to say
    begun[0] = 0;
    const start = performance.now();
    const supervisor = supervise(plan, kept);
    plan = withoutLastWords(plan);
    const { kind, how, why } = await supervisor;
    if (kind === 'done') return;
    if (kind === 'died') takeover(how);
    if (begun[0] !== 0) {
      inVain = 0;
      said = '';
    } else inVain += 1;
    if (why !== said) warn(why);
    if (inVain > 0) said = why;
    if (isLast && kind === 'died') return;
    const { tries, pause: longest } = LIMITS[kind];
    if (inVain >= tries) {
      warn(`${inVain} supervisors in a row could not begin: trapped calls fail with ENOSYS from now on`);
      return;
    }
    pause = inVain === 0 && performance.now() - start > SETTLED ? 0 : Math.min(longest, pause * 2 + 10);
    await sleep(pause);
  }
}

/** The launcher's stderr is with the first supervisor, if it is anywhere. */
function withoutLastWords({ fds, ...plan }: Plan): Plan {
  if (fds.lastWords !== undefined) closeSync(fds.lastWords);
  return { ...plan, fds: { ...fds, lastWords: undefined } };
}

/** True if no process is left that could call. */
function isDeserted(listener: number): boolean {
  const poll = new PollSet(1);
  poll.set(0, listener, 0);
  return poll.wait(1, 0) && (poll.events(0) & POLLHUP) !== 0;
}

/**
 * What a supervisor copies, its target reads, on another CPU: large copies must not leave it in this one's cache, from where it is fetched
 * line by line. glibc copies past the cache from this size on, in bytes (glibc manual, Memory Related Tunables); another C library does not look.
 */
const PAST_THE_CACHE = 'glibc.cpu.x86_non_temporal_threshold=0x40000';

function supervisorEnvironment(): NodeJS.ProcessEnv {
  const { GLIBC_TUNABLES: given, ...others } = process.env;
  return { ...others, GLIBC_TUNABLES: given === undefined ? PAST_THE_CACHE : `${PAST_THE_CACHE}:${given}` };
}

/** Starts a supervisor, and waits for its end. */
async function supervise(plan: Plan, { fds, program }: Kept): Promise<Fate> {
  const handed = handOn(plan, firstFreeFd(plan));
  const args = program.commandLine(firstFreeFd(plan) + handed.fds.length, JSON.stringify(handed.plan));
  return new Promise((resolve) => {
    const isAbsent = (error: unknown): void => {
      resolve({
        kind: 'absent',
        how: '',
        why: `no supervisor could be started (${messageOf(error)}), it is tried again`,
      });
    };
    try {
      // what Node itself has to say of the supervisor's end comes to its stderr
      const stdio = ['ignore', 'ignore', 'pipe', ...fds, ...handed.fds, ...program.fds] as const;
      const child = spawn(NODE, args, { argv0: process.execPath, stdio: [...stdio], env: supervisorEnvironment() });
      let words = '';
      child.stderr?.setEncoding('utf8').on('data', (text: string) => (words = (words + text).slice(0, 65536)));
      child.on('error', isAbsent);
      child.on('close', (code, signal) => {
        const how = [signal ?? `status ${code}`, essence(words)].filter((text) => text !== '').join(': ');
        resolve({
          kind: code === 0 ? 'done' : 'died',
          how: signal ?? `status ${code}`,
          why: `the supervisor ended (${how}), a successor takes over`,
        });
      });
    } catch (error) {
      isAbsent(error); // ENOMEM, for one, is thrown
    }
  });
}

/** The line that says it, of all that a process printed when it failed. */
function essence(words: string): string {
  return /^.*error.*$/im.exec(words)?.[0].trim() ?? words.trim().split('\n')[0] ?? '';
}
