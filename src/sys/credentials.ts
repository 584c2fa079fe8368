import { readFileSync } from 'node:fs';
import { CAP_SYS_PTRACE } from '../abi/prctl.ts';

/** What /proc/PID/status says of a process; `undefined` if it is gone. */
function statusOf(pid: number | 'self'): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return undefined;
  }
}

/** What a task may do, as far as one task may do more than another: its users, groups and permitted capabilities. */
function rightsIn(status: string): string {
  return status.match(/^(Uid|Gid|CapPrm):.*$/gm)?.join('\n') ?? '';
}

const ownRights = rightsIn(statusOf('self') ?? '');

/** Whether a thread, or this process, has a capability in effect; false if it is gone. */
export function hasCapability(of: number | 'self', capability: number): boolean {
  const status = statusOf(of) ?? '';
  const theirs = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return ((theirs >> BigInt(capability)) & 1n) === 1n;
}

/** Whether this process may reach into others than those of its own user, which may do no less than it does. */
export const reachesOthers = hasCapability('self', CAP_SYS_PTRACE);

/** Whether a thread has the same rights as this process; `undefined` if it is gone. */
export function hasOwnRights(tid: number): boolean | undefined {
  const status = statusOf(tid);
  return status === undefined ? undefined : rightsIn(status) === ownRights;
}
