import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { howEnded } from './attempted.ts';
import type { Check } from './check.ts';

/** What a run came to: `undefined` if it did what it should, or why not. */
export type Run = (args: readonly string[]) => string | undefined;

const PATIENCE_MS = 30_000;

/** Carries out `vfio-shim run`, by the program beside this one. */
export const run: Run = (args) => {
  const ended = spawnSync(process.execPath, [join(import.meta.dirname, 'main.js'), 'run', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    timeout: PATIENCE_MS,
    killSignal: 'SIGKILL',
  });
  if (ended.error === undefined && ended.status === 0) return undefined;
  const said = /^vfio-shim: (.*)$/m.exec(ended.stderr ?? '')?.[1];
  return said ?? howEnded(ended);
};

/** A target whose call is trapped: a supervisor reads the path from its memory, and gives it a descriptor. */
const OPENS_GROUP = "fs.closeSync(fs.openSync('/dev/vfio/9000', 'r+'))";

const RUNS = [
  {
    name: 'run',
    what: 'run: a command runs under the filter for devices of the kernel',
    args: ['--', '/bin/sh', '-c', ':'],
  },
  {
    name: 'run --device',
    what: 'run --device: a command opens an emulated group',
    args: ['--device', 'mtty', '--', process.execPath, '-e', OPENS_GROUP],
  },
] as const;

/** Tries `run` itself, in whole. */
export function runs(carryOut: Run = run): Check[] {
  return RUNS.map(({ name, what, args }) => {
    const why = carryOut(args);
    if (why === undefined) return { name, level: 'ok', what };
    return { name, level: 'fail', what: `${what}: ${why}`, remedy: 'docs/kernel-devices.md says what a host needs' };
  });
}
