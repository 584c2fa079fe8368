import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { inWords } from '../../src/cli/doctor.ts';
import type { Check } from '../../src/doctor/check.ts';
import { examine, LEAST_NODE, works, type Machine } from '../../src/doctor/examine.ts';
import { ATTEMPTS } from '../../src/doctor/outcome.ts';
import { Child } from '../../src/vmm/child.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { cli, ended, FAILED, OK, type Ended } from '../support/cli-run.ts';
import { because, lacksForRun, lacksNobody, NOBODY } from '../support/host.ts';
import { hostWith } from '../support/host-tree.ts';

/** A machine on which everything works. */
function machine(different: Partial<Machine> = {}): Machine {
  return {
    host: hostWith({
      '/proc/sys/kernel/ostype': 'Linux\n',
      '/proc/self/status': 'CapEff:\tffffffffffffffff\nSeccomp:\t0\n',
      '/proc/self/limits': 'Max locked memory         unlimited            unlimited            bytes\n',
      '/dev/vfio/vfio': '',
      '/dev/vfio/26': '',
    }),
    env: { PATH: '' },
    release: '6.12.1',
    arch: 'x64',
    node: '18.19.0',
    attempts: () => ATTEMPTS.map((name) => ({ name })),
    run: () => undefined,
    qemuVersion: () => '7.2',
    ...different,
  };
}

const failing = (checks: readonly Check[]): string[] =>
  checks.filter(({ level }) => level === 'fail').map(({ name }) => name);

describe('examine', () => {
  it('finds that run works, whatever else is missing', () => {
    const checks = examine(machine());
    expect(works(checks)).toBe(true);
    expect(checks.filter(({ level }) => level !== 'ok').map(({ name }) => name)).toEqual(['qemu']);
    expect(checks.every(({ level, remedy }) => (level === 'ok') === (remedy === undefined))).toBe(true);
    expect(works(examine(machine({ host: hostWith({}) })))).toBe(true); // what cannot be told is no failure
  });

  it.each<[what: string, different: Partial<Machine>, names: string[]]>([
    ['Node is too old', { node: '18.18.3' }, ['node']],
    ['Node is much too old', { node: '16.20.0' }, ['node']],
    ['seccomp is missing', { attempts: () => [{ name: 'seccomp', errno: 'ENOSYS', message: 'no' }] }, ['seccomp']],
    ['koffi does not load', { attempts: () => [{ name: 'koffi', message: 'no' }] }, ['koffi']],
    ['run fails', { run: () => 'no' }, ['run', 'run --device']],
  ])('finds that it does not: %s', (_, different, names) => {
    const checks = examine(machine(different));
    expect([works(checks), failing(checks)]).toEqual([false, names]);
  });

  it('finds that it does not if Yama forbids it', () => {
    const host = hostWith({ '/proc/sys/kernel/yama/ptrace_scope': '3\n' });
    expect(failing(examine(machine({ host })))).toEqual(['yama']);
  });

  it('takes the Node.js that package.json asks for', () => {
    const { engines } = JSON.parse(readFileSync('package.json', 'utf8')) as { engines: { node: string } };
    expect(engines.node).toBe(`>=${LEAST_NODE}`);
    expect(failing(examine(machine({ node: '22.0.0' })))).toEqual([]);
  });
});

describe('what doctor prints', () => {
  it('is a line each, and whether run works', () => {
    const checks: Check[] = [
      { name: 'a', level: 'ok', what: 'A' },
      { name: 'b', level: 'warn', what: 'B\nC', remedy: 'do' },
    ];
    expect(inWords(checks)).toBe('ok    A\nwarn  B\\nC  — do\nrun works here.\n');
    expect(inWords([{ name: 'c', level: 'fail', what: 'C', remedy: 'do' }])).toBe(
      'fail  C  — do\nrun does not work here.\n',
    );
  });
});

interface Told {
  readonly works: boolean;
  readonly checks: readonly Check[];
}

const lacking = lacksForRun();
describe.skipIf(lacking !== undefined)(`vfio-shim doctor${because(lacking)}`, () => {
  beforeAll(requireCli);
  const TIMEOUT = 60_000;
  /** It starts half a dozen processes of Node, one after the other. */
  const doctor = (args: readonly string[], prefix: readonly string[] = []): Promise<Ended> =>
    ended(cli(args, {}, prefix), TIMEOUT);

  it('finds that run works where it does', { timeout: TIMEOUT }, async () => {
    const { exit, stdout, stderr } = await doctor(['doctor', '--json']);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    const told = JSON.parse(stdout) as Told;
    expect(told.works).toBe(true);
    const names = told.checks.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining([...ATTEMPTS, 'yama', 'run', 'run --device', 'vfio', 'memlock', 'qemu']),
    );
    expect(failing(told.checks)).toEqual([]);
  });

  it('finds that it does not under run, where there is a listener already', { timeout: TIMEOUT }, async () => {
    const { exit, stdout } = await doctor(['run', '--', process.execPath, CLI, 'doctor', '--json']);
    const told = JSON.parse(stdout) as Told;
    expect(failing(told.checks)).toEqual(['seccomp', 'run', 'run --device']);
    expect(told.checks.find(({ name }) => name === 'seccomp')?.what).toMatch(/there can be only one$/);
    expect([exit, told.works]).toEqual([FAILED, false]);
  });

  it('finds that it does not if files may not be large', { timeout: TIMEOUT }, async () => {
    const { exit, stdout } = await doctor(['doctor'], ['prlimit', '--fsize=1048576']);
    expect(exit).toEqual(FAILED);
    expect(stdout).toMatch(/^fail {2}shared memory: .*EFBIG {2}— ulimit -f unlimited/m);
    expect(stdout).toMatch(/^fail {2}run: .*RLIMIT_FSIZE: 1048576 is too low/m);
    expect(stdout).toMatch(/^run does not work here\.\n$/m);
  });

  it('finds that koffi is missing', { timeout: TIMEOUT }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-doctor-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    cpSync(dirname(CLI), join(directory, 'dist/cli'), { recursive: true });
    writeFileSync(join(directory, 'package.json'), '{ "version": "0.0.0" }');
    const child = new Child([process.execPath, join(directory, 'dist/cli/main.js'), 'doctor', '--json'], {});
    const { exit, stdout } = await ended(child, TIMEOUT);
    const told = JSON.parse(stdout) as Told;
    expect([exit, failing(told.checks)]).toEqual([FAILED, ['koffi', 'run', 'run --device']]);
    expect(told.checks.find(({ name }) => name === 'koffi')?.what).toMatch(/ loads: Cannot find module 'koffi'$/);
  });

  const noNobody = lacksNobody();
  it.skipIf(noNobody !== undefined)(
    `tells another user what is not for him${because(noNobody)}`,
    { timeout: TIMEOUT },
    async () => {
      const { exit, stdout } = await doctor(['doctor'], NOBODY);
      expect(exit).toEqual(OK);
      expect(stdout).toMatch(/^ok {4}run: /m);
      expect(stdout).toMatch(/^\w+ +.*no CAP_SYS_PTRACE, no CAP_IPC_LOCK/m);
    },
  );
});
