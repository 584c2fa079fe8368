import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { errnoName } from '../../src/abi/errno.ts';
import { CAP_SYS_PTRACE } from '../../src/abi/prctl.ts';
import { PTRACE_SEIZE } from '../../src/abi/ptrace.ts';
import type { SyscallName } from '../../src/abi/syscalls.ts';
import { trySyscall } from '../../src/sys/libc.ts';
import { CLI } from '../../tools/vmm/cli.ts';

/*
 * What a host may lack that no package brings: its kernel was built without it, or a container, a security module or the
 * user's rights keep it away. Each function returns the reason in words, `undefined` if nothing is lacking. Tests that need
 * it are skipped with that reason, with CI set too. The probes are the tests' own: what the command itself says of a host is
 * under test.
 */

/** The reason, as it stands behind a test's title. */
export function because(lacking: string | undefined): string {
  return lacking === undefined ? '' : ` (${lacking})`;
}

/** What serving a target takes of a supervisor: to look at its descriptors and its memory, and to lead its threads. */
export function lacksForRun(): string | undefined {
  return (
    attempt('pidfd_getfd', -1, 0, 0) ??
    attempt('process_vm_readv', pid, 0, 0, 0, 0, 0) ??
    attempt('ptrace', PTRACE_SEIZE, NOBODYS_PID, 0, 0) ??
    restricted(1)
  );
}

/** To run a VM by the processor itself. */
export function lacksKvm(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    return `no KVM: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/** Reads and writes that no filter of system calls sees. */
export function lacksIoUring(): string | undefined {
  return attempt('io_uring_setup', 1, 0, 0);
}

/** To trace a process that is not a descendant, as one that kills supervisors does. */
export function lacksTracing(): string | undefined {
  return attempt('ptrace', PTRACE_SEIZE, NOBODYS_PID, 0, 0) ?? restricted(0);
}

/** To start the command as another user: root's right, the program for it, and ways that are open to everybody. */
export function lacksNobody(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const look = `for (const path of ${JSON.stringify([CLI, tmpdir()])}) fs.accessSync(path)`;
  const [file, ...args] = [...NOBODY, process.execPath, '-e', look];
  const { status, stderr, error } = spawnSync(file, args, { encoding: 'utf8' });
  const why = error?.message ?? /^Error: (.*)$/m.exec(stderr)?.[1] ?? stderr.trim();
  return status === 0 ? undefined : `as another user: ${why}`;
}

/** To have mounts of one's own, on a host that has a PCI bus. */
export function lacksMounts(): string | undefined {
  if (!existsSync('/sys/bus/pci/devices')) return 'no PCI bus';
  const { status, stderr, error } = spawnSync('unshare', ['--mount', 'true'], { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** A program that a package brings: CI has it. */
export function lacksCommand(name: string): string | undefined {
  const { error } = spawnSync(name, ['--version'], { stdio: 'ignore' });
  return error === undefined || process.env['CI'] !== undefined ? undefined : `${name} is not in PATH`;
}

/** To give a process the id of one that has ended: CAP_CHECKPOINT_RESTORE, and a /proc that lets it be written. */
export function lacksChosenIds(): string | undefined {
  try {
    chooseNextId(Number(readFileSync(LAST_ID, 'utf8')) + 1);
    return undefined;
  } catch (error) {
    return `${LAST_ID}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** The next process of this pid namespace gets this id, unless it has an owner, or somebody else is quicker. */
export function chooseNextId(id: number): void {
  writeFileSync(LAST_ID, String(id - 1));
}

const LAST_ID = '/proc/sys/kernel/ns_last_pid';

/** Starts a program as a user without any right. */
export const NOBODY = [
  'setpriv',
  '--reuid=65534',
  '--regid=65534',
  '--clear-groups',
  '--inh-caps=-all',
  '--bounding-set=-all',
];

const { pid } = process;
/** No process has this id: it is above the kernel's limit, PID_MAX_LIMIT. */
const NOBODYS_PID = 2 ** 22 + 1;
const KEPT_AWAY: ReadonlySet<string> = new Set(['EPERM', 'EACCES', 'ENOSYS']);

/** Why a system call is not to be had. One that is refused for the nonsense it was asked is there. */
function attempt(name: SyscallName, ...args: [number, number, number, number?, number?, number?]): string | undefined {
  const result = trySyscall(name, ...args);
  const errno = result < 0 ? errnoName(-result) : undefined;
  return errno !== undefined && KEPT_AWAY.has(errno) ? `${name}: ${errno}` : undefined;
}

/**
 * Whom Yama lets a process trace (Documentation/admin-guide/LSM/Yama.rst): in scope 0, which it also is if Yama is absent,
 * others of its user; in scope 1 its descendants; with `CAP_SYS_PTRACE` anybody up to scope 2, and nobody in scope 3.
 */
function restricted(highest: 0 | 1): string | undefined {
  const file = '/proc/sys/kernel/yama/ptrace_scope';
  const scope = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  if (scope <= highest || (scope < 3 && mayTraceAnybody())) return undefined;
  return `kernel.yama.ptrace_scope is ${scope}`;
}

function mayTraceAnybody(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> BigInt(CAP_SYS_PTRACE)) & 1n) === 1n;
}
