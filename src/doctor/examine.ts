import type { Host } from '../host/host.ts';
import type { Check } from './check.ts';
import { judge } from './judge.ts';
import type { Outcome } from './outcome.ts';
import { qemus } from './qemus.ts';
import { runs, type Run } from './runs.ts';
import { container, memlock, nodes, yama } from './surroundings.ts';

/** What is examined: this machine, or what a test makes of one. */
export interface Machine {
  readonly host: Host;
  readonly env: NodeJS.ProcessEnv;
  /** The kernel's, as uname(2) has it. */
  readonly release: string;
  readonly arch: NodeJS.Architecture;
  /** Node's version. */
  readonly node: string;
  readonly attempts: () => Outcome[];
  readonly run: Run;
  readonly qemuVersion: (path: string) => string;
}

/** Everything that decides whether, and how well, `run` works here. */
export function examine(machine: Machine): Check[] {
  const { host, env, release, arch } = machine;
  return [
    { name: 'linux', level: 'ok', what: `Linux ${release} on ${arch}` },
    nodeVersion(machine.node),
    ...judge(machine.attempts()),
    yama(host),
    ...runs(machine.run),
    nodes(host),
    memlock(host),
    ...qemus(env['PATH'] ?? '', arch, machine.qemuVersion),
    container(host, env),
  ];
}

/** Whether `run` works: it was tried, and nothing that it needs is missing. */
export function works(checks: readonly Check[]): boolean {
  return checks.every(({ level }) => level !== 'fail');
}

/** As package.json has it. */
export const LEAST_NODE = '18.19';

function nodeVersion(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [least = 0, leastMinor = 0] = LEAST_NODE.split('.').map(Number);
  const isEnough = major > least || (major === least && minor >= leastMinor);
  const what = `Node.js ${version}`;
  if (isEnough) return { name: 'node', level: 'ok', what };
  return { name: 'node', level: 'fail', what, remedy: `needs ${LEAST_NODE} or newer` };
}
