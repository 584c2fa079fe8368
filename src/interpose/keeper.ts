import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createSharedMemory } from '../sys/memory.ts';
import { receiveFd, socketPair } from '../sys/socket.ts';
import { becomeSessionLeader } from '../sys/process.ts';
import { JournalLayout } from './journal.ts';
import { warn } from './log.ts';
import { CANNOT_BEGIN, placesOf, sharedFiles, vaultsOf, type Plan } from './plan.ts';

/*
 * The keeper: holds what a supervisor must not take with it when it dies (the listener, the shared memory), and starts a
 * successor where one does. It ends when a supervisor has ended by itself, which is after the target.
 */

/** The socket through which the launcher sends the listener. */
export const LAUNCHER_FD = 3;
/** A supervisor that lived so long, in milliseconds, is no sign that the next will die too. */
const SETTLED = 500;
/** However often supervisors die, the next is started: the target's calls wait for it, as long as the target lives. */
const LONGEST_PAUSE = 250;

const supervisorPath = fileURLToPath(new URL('./supervisor-main.js', import.meta.url));

export function keep(plan: Plan): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGPIPE'] as const) {
    process.on(signal, () => {}); // the target ends the run, not what is sent to a terminal's processes
  }
  becomeSessionLeader();
  process.chdir('/');
  const layout = new JournalLayout(placesOf(plan));
  const files = sharedFiles(plan, layout.size).map(({ name, size }) => createSharedMemory(name, size));
  const vaults = Array.from({ length: vaultsOf(plan) }, () => socketPair()).flat();
  const listener = receiveFd(LAUNCHER_FD);
  if (listener === undefined) {
    cleanUp(plan); // the launcher gave up; it has said why
    return;
  }
  const inherited = [listener, ...files, ...vaults].map(({ number }) => number);
  const report = plan.reportFd === undefined ? [] : [plan.reportFd];
  let pause = 0;
  let began: number | undefined;

  const start = (): void => {
    const child = spawn(
      process.execPath,
      ['--no-warnings', '--no-flush-bytecode', supervisorPath, JSON.stringify(plan)],
      {
        stdio: ['ignore', 'inherit', 'inherit', ...inherited, ...report],
      },
    );
    child.on('error', (error) => {
      warn(`supervisor: ${error.message}`);
      cleanUp(plan);
    });
    child.on('exit', (code, signal) => {
      if (code === 0 || (code === CANNOT_BEGIN && began === undefined)) {
        cleanUp(plan);
        return;
      }
      warn(`the supervisor ended (${signal ?? `status ${code}`}), a successor takes over`);
      const now = performance.now();
      pause = now - (began ?? now) > SETTLED ? 0 : Math.min(LONGEST_PAUSE, pause * 2 + 10);
      began = now;
      setTimeout(start, pause);
    });
  };
  start();
}

function cleanUp(plan: Plan): void {
  if (plan.sysfs?.fresh === true) rmSync(plan.sysfs.path, { recursive: true, force: true });
  process.exit(0);
}
