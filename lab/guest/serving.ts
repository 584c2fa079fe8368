import { readFileSync, readdirSync } from 'node:fs';
import { killHard } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';

/** The processes of the shim that serve a program: they inherit the mark of its environment. */

type Part = 'keeper-main' | 'supervisor-main';

/** Long: a supervisor takes seconds to start here, and the machine may be busy. */
const START_MS = 60_000;

/** The variable of a program that runs under the shim, for env(1). */
export function markOf(name: string): string {
  return `VFIO_SHIM_LAB_NAME=${name}`;
}

/** The keepers or supervisors of the program of this name (none, one, or for a moment two), or of every program. */
export function serving(part: Part, name?: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const [, ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        if (!args.some((argument) => argument.includes(`/${part}.`)) || args[0] === '-c') return false;
        return name === undefined || readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(markOf(name));
      } catch {
        return false; // gone meanwhile
      }
    })
    .map(Number);
}

/** SECCOMP_IOCTL_NOTIF_RECV on the listener, as /proc/PID/syscall shows a process that waits in it. */
const RECEIVING = /^16 0x3 0xc0502100 /;

function isReceiving(pid: number): boolean {
  try {
    return RECEIVING.test(readFileSync(`/proc/${pid}/syscall`, 'latin1'));
  } catch {
    return false; // gone meanwhile
  }
}

/** Kills the supervisor of a program, once it serves. */
export async function killSupervisor(name: string): Promise<void> {
  const first = (): number | undefined => serving('supervisor-main', name)[0];
  const ready = (): number | undefined => [first()].find((pid) => pid !== undefined && isReceiving(pid));
  const pid = await poll(ready, START_MS, `a supervisor of ${name} to serve`);
  killHard(pid);
  await poll(() => (first() === pid ? undefined : true), START_MS, `supervisor ${pid} to die`);
}

/** Waits until nothing serves a program any more, or any program. */
export async function assertUnserved(name?: string): Promise<void> {
  await assertServing(0, name);
}

/** Waits until so many processes serve, two for each program. */
export async function assertServing(count: number, name?: string): Promise<void> {
  const found = (): number => serving('keeper-main', name).length + serving('supervisor-main', name).length;
  await poll(
    () => (found() === count ? true : undefined),
    20_000,
    () => `${name ?? 'all'}: ${found()} serve, not ${count}`,
  );
}
