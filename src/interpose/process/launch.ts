import { spawnSync } from 'node:child_process';
import { accessSync, constants, fstatSync, readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { errnoName } from '../../abi/errno.ts';
import { CAP_SYS_PTRACE } from '../../abi/prctl.ts';
import { ShimError } from '../../error.ts';
import { hasCapability } from '../../sys/credentials.ts';
import { inheritedDescriptors, setCloseOnExec } from '../../sys/fd.ts';
import { arch } from '../../sys/libc.ts';
import { ownPidfd } from '../../sys/pidfd.ts';
import { allowTracer, descriptorLimit, dieWithParent, execute, fileSizeLimit } from '../../sys/process.ts';
import { installFilter } from '../../sys/seccomp.ts';
import { sendFd, socketPair } from '../../sys/socket.ts';
import { bridgingFilter, emulationFilter, type Untrapped } from '../trap/filter.ts';
import { checkCalls } from '../trap/needed-calls.ts';
import { nodeOptions, withoutNodeVariables } from '../run/node.ts';
import { firstFreeFd, sharedFiles } from '../memory/inherited.ts';
import { handOn, hasLog, LAUNCHER_FD, type FdWindow, type Order, type Plan } from '../run/plan.ts';

const keeperPath = join(import.meta.dirname, 'keeper-main.js');

/**
 * Replaces this process by the target, under a filter whose listener a keeper holds. The process id stays, so signals,
 * exit status and whoever watches the process see the target itself.
 *
 * It starts the keeper first, through a shell that ends at once: the target must not get a child it does not know of. The listener
 * waits for the keeper in the socket, and the target's first trapped call waits for the supervisor.
 */
export function launch(order: Order, command: readonly string[], env: NodeJS.ProcessEnv): never {
  const [name = ''] = command;
  const path = findCommand(name, env['PATH']);
  const keepers = Object.values(order.fds);
  const given = inheritedDescriptors(keepers);
  for (const fd of given) setCloseOnExec(fd, true); // they are the target's, not the keeper's
  for (const fd of keepers) if (fd !== undefined) setCloseOnExec(fd, true); // they are the keeper's, not the target's
  const target = ownPidfd();
  const { dev, ino } = fstatSync(2);
  const lastWords = order.verbose && !hasLog(order) && order.devices.length === 0 ? 2 : undefined;
  const plan: Plan = {
    ...order,
    fds: { target: target.number, ...order.fds, wake: undefined, lastWords },
    stderr: { dev, ino },
  };
  const [mine, theirs] = socketPair();
  const keeper = startKeeper(plan, theirs.number);
  theirs.close();
  allowTracer(keeper);
  if (plan.fds.report !== undefined) dieWithParent(); // who waits for the report stands for the target
  const listener = installFilter(filterOf(plan));
  sendFd(mine.number, listener.number);
  return execute(path, command, env, given);
}

function filterOf(plan: Plan): Uint8Array {
  return plan.devices.length > 0
    ? emulationFilter(arch, untrapped(plan), plan.dataFds, { looks: plan.iommufd, lists: plan.lists })
    : bridgingFilter(arch, plan.dirtyPages, plan.dataFds);
}

/** What is recorded is every access of config space, too. */
function untrapped({ devices, recording }: Plan): Untrapped {
  return {
    bar: Math.min(...devices.map(({ bar }) => bar)),
    config: recording === undefined ? Math.min(...devices.map(({ spec }) => spec.config)) : 0,
  };
}

/** The numbers for stand-in data fds: few programs get so far, and those that do lose nothing but time. */
const USUAL_DATA_FDS: FdWindow = { first: 0x3f00, last: 0x3fff };

/** The window of descriptor numbers for data fds, below this process's limit, which the target inherits. */
export function dataFdWindow(): FdWindow {
  const limit = descriptorLimit();
  if (limit > USUAL_DATA_FDS.last) return USUAL_DATA_FDS;
  return { first: limit - 64, last: limit - 1 };
}

/** Starts the keeper, with none of what this process has as input and output, and returns its process id. */
function startKeeper(plan: Plan, socket: number): number {
  const script = '"$@" </dev/null >/dev/null 2>&1 & echo $!';
  const handed = handOn(plan, LAUNCHER_FD + 1);
  const program = [process.execPath, ...nodeOptions, keeperPath, JSON.stringify(handed.plan)];
  const { status, signal, stdout, error } = spawnSync('/bin/sh', ['-c', script, 'sh', ...program], {
    stdio: ['ignore', 'pipe', 'inherit', socket, ...handed.fds],
    env: withoutNodeVariables(process.env),
  });
  const pid = Number(stdout?.toString().trim());
  if (status === 0 && pid > 0) return pid;
  const errno = errnoName(-(error === undefined ? 0 : ((error as NodeJS.ErrnoException).errno ?? 0)));
  const why = errno === undefined ? `its shell ended with ${signal ?? `status ${status}`}` : `/bin/sh: ${errno}`;
  throw new ShimError('ERR_TARGET', `cannot start the keeper process: ${why}`, {
    cause: error,
    ...(errno !== undefined && { errno }),
  });
}

/**
 * Throws `ERR_KERNEL_FEATURE` if Yama keeps a process from reaching its descendants' memory and descriptors, which is what
 * a supervisor does: scope 2 without `CAP_SYS_PTRACE`, and scope 3 (Documentation/admin-guide/LSM/Yama.rst).
 */
export function checkTracing(): void {
  checkCalls();
  const scope = yamaScope();
  if (scope < 2 || (scope === 2 && hasCapability('self', CAP_SYS_PTRACE))) return;
  const need = scope === 2 ? 'needs CAP_SYS_PTRACE' : 'is not possible';
  throw new ShimError('ERR_KERNEL_FEATURE', `run ${need} if kernel.yama.ptrace_scope is ${scope}`, {
    errno: 'EPERM',
  });
}

/** Descriptors that Node itself has open, with some to spare. */
const NODES_OWN = 40;
/** Who asks for the status. */
const CLIENTS = 24;

/** Throws `ERR_SYSCALL` if resource limits do not allow the keeper to hold what this plan needs, and what clients do if it has any. */
export function checkLimits(plan: Order, hasClients: boolean): void {
  const largest = Math.max(...sharedFiles(plan, 4096).map(({ size }) => size));
  if (fileSizeLimit() < largest) {
    throw new ShimError(
      'ERR_SYSCALL',
      `RLIMIT_FSIZE: ${fileSizeLimit()} is too low, run needs sparse files of ${largest} bytes`,
      {
        errno: 'EFBIG',
      },
    );
  }
  const needed = Math.max(
    firstFreeFd(plan) + NODES_OWN + (hasClients ? CLIENTS : 0),
    plan.dataFds === undefined ? 0 : 128,
  );
  const limit = descriptorLimit();
  if (limit < needed) {
    throw new ShimError('ERR_SYSCALL', `RLIMIT_NOFILE: ${limit} is too low, this run needs ${needed}`, {
      errno: 'EMFILE',
    });
  }
}

function yamaScope(): number {
  try {
    return Number(readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'latin1'));
  } catch {
    return 0; // no Yama
  }
}

/** The program that a command names, as a shell finds it. Throws `ERR_COMMAND` with `ENOENT` or `EACCES`. */
export function findCommand(name: string, searchPath = ''): string {
  const candidates = name.includes('/')
    ? [name]
    : searchPath.split(delimiter).map((directory) => join(directory === '' ? '.' : directory, name));
  let denied = false;
  for (const path of candidates) {
    try {
      if (!statSync(path).isFile()) continue;
    } catch {
      continue; // not there, or not for us to see
    }
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      denied = true;
    }
  }
  throw denied
    ? new ShimError('ERR_COMMAND', `${name}: permission denied`, { errno: 'EACCES' })
    : new ShimError('ERR_COMMAND', `${name}: command not found`, { errno: 'ENOENT' });
}
