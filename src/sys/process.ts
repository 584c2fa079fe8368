import { constants } from 'node:os';
import { PR_SET_PDEATHSIG, PR_SET_PTRACER, RLIMIT_FSIZE, RLIMIT_NOFILE } from '../abi/prctl.ts';
import { ShimError } from '../error.ts';
import { setCloseOnExec } from './fd.ts';
import { addressOf, cString, failedWith, syscallError, trySyscall, withAddress } from './libc.ts';

/** Lets a process and its descendants trace this one, if Yama restricts that; without Yama there is nothing to do. */
export function allowTracer(tracer: number): void {
  trySyscall('prctl', PR_SET_PTRACER, tracer);
}

/** This process gets a signal when the thread that started it ends. Survives execve. */
export function dieWithParent(): void {
  trySyscall('prctl', PR_SET_PDEATHSIG, constants.signals.SIGKILL);
}

/** An array of pointers to strings. SAFETY: whoever uses `memory` keeps `pointedTo`. */
function pointers(strings: readonly string[]): { memory: BigUint64Array; pointedTo: Uint8Array[] } {
  const pointedTo = strings.map(cString);
  const memory = new BigUint64Array(pointedTo.length + 1);
  pointedTo.forEach((bytes, n) => (memory[n] = BigInt(addressOf(bytes))));
  return { memory, pointedTo };
}

/**
 * Replaces this process by a program, which gets these descriptors besides the standard ones. Returns only by throwing
 * `ERR_SYSCALL`. Node's own changes are undone first: what it was given stays open and SIGPIPE has its default action.
 */
export function execute(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  descriptors: readonly number[],
): never {
  for (const fd of [0, 1, 2, ...descriptors]) setCloseOnExec(fd, false);
  resetSignals();
  const argv = pointers(args);
  const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
  const envp = pointers(variables);
  // SAFETY: withAddress() keeps both arrays and their strings
  const result = withAddress(
    cString(path),
    (file) => trySyscall('execve', file, addressOf(argv.memory), addressOf(envp.memory)),
    [argv.memory, ...argv.pointedTo, envp.memory, ...envp.pointedTo],
  );
  if (failedWith(result, 'ENOENT')) {
    throw new ShimError('ERR_COMMAND', `${path}: its interpreter does not exist`, {
      errno: 'ENOENT',
      syscall: 'execve',
    });
  }
  throw syscallError(`start ${path}`, 'execve', -result);
}

/**
 * Gives the signals that Node ignores (node.cc: PlatformInit) their default actions. What its parent ignored is lost: Node
 * resets that when it starts.
 */
export function resetSignals(): void {
  const SIGSET_SIZE = 8;
  const action = new Uint8Array(32); // the kernel's `struct sigaction` (x86-64 and aarch64); all zero is the default
  for (const signal of [constants.signals.SIGPIPE, constants.signals.SIGXFSZ]) {
    withAddress(action, (at) => trySyscall('rt_sigaction', signal, at, 0, SIGSET_SIZE));
  }
}

/** Leaves the terminal's session: what is typed there does not reach this process. If it is a leader already, nothing changes. */
export function becomeSessionLeader(): void {
  trySyscall('setsid');
}

const UNLIMITED = 2 ** 30;

/** The most descriptors this process may have open: its numbers are below that. */
export function descriptorLimit(): number {
  return Math.min(UNLIMITED, Number(softLimit(RLIMIT_NOFILE)));
}

/** The largest file that this process may make, in bytes; infinite if there is no limit. */
export function fileSizeLimit(): number {
  const limit = softLimit(RLIMIT_FSIZE);
  return limit === 2n ** 64n - 1n ? Number.POSITIVE_INFINITY : Number(limit);
}

function softLimit(resource: number): bigint {
  const limits = new BigUint64Array(2);
  withAddress(limits, (at) => trySyscall('prlimit64', 0, resource, 0, at));
  return limits[0] ?? 0n;
}
