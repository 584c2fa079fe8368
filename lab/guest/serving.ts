import { readFileSync, readdirSync } from 'node:fs';
import { killHard } from '../../test/real/processes.ts';
import { poll } from '../../test/real/wait.ts';

/** The processes of the shim that serve a program: they inherit the mark of its environment. */

type Part = 'keeper-main' | 'supervisor-main';

/** Long: a supervisor takes seconds to start here, and the machine may be busy. */
const START_MS = 60_000;

/** The variable of a program that runs under the shim, for env(1). */
export function markOf(name: string): string {
  return `VFIO_SHIM_LAB_NAME=${name}`;
}

/** The keepers or supervisors of the program of this name: none, one, or for a moment two. */
export function serving(part: Part, name: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const [, ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        if (!args.some((argument) => argument.endsWith(`/${part}.js`)) || args[0] === '-c') return false;
        return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(markOf(name));
      } catch {
        return false; // gone meanwhile
      }
    })
    .map(Number);
}

/** Kills the supervisor of a program; returns what it was. */
export async function killSupervisor(name: string): Promise<number> {
  const found = (): number | undefined => serving('supervisor-main', name)[0];
  const pid = await poll(found, START_MS, `a supervisor of ${name}`);
  killHard(pid);
  await poll(() => (found() === pid ? undefined : true), START_MS, `supervisor ${pid} to die`);
  return pid;
}

/** Waits until nothing serves a program any more. */
export async function assertUnserved(name: string): Promise<void> {
  const left = (): number[] => [...serving('keeper-main', name), ...serving('supervisor-main', name)];
  await poll(
    () => (left().length === 0 ? true : undefined),
    15_000,
    () => `${name}: ${left().length} to end`,
  );
}
