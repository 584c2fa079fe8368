import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Check } from '../../src/doctor/check.ts';
import { qemus } from '../../src/doctor/qemus.ts';
import { runs } from '../../src/doctor/runs.ts';
import { container, memlock, nodes, yama } from '../../src/doctor/surroundings.ts';
import { ShimError } from '../../src/error.ts';
import { hostWith, type Entry } from '../support/host-tree.ts';

const line = ({ level, what, remedy }: Check): string =>
  `${level} ${what}${remedy === undefined ? '' : ` — ${remedy}`}`;

/** /proc/self/status of a process with these capabilities, of the first 24. */
const status = (capabilities: number, seccomp = 0): Record<string, Entry> => ({
  '/proc/self/status': `Name:\tnode\nCapEff:\t${capabilities.toString(16).padStart(16, '0')}\nSeccomp:\t${seccomp}\n`,
});
const [SYS_PTRACE, IPC_LOCK] = [1 << 19, 1 << 14];

describe('yama', () => {
  const scoped = (scope: string, capabilities = 0): string =>
    line(yama(hostWith({ '/proc/sys/kernel/yama/ptrace_scope': `${scope}\n`, ...status(capabilities) })));

  it.each([
    ['0', 0, /^ok .* is 0$/],
    ['1', 0, /^ok .* is 1$/],
    ['2', SYS_PTRACE, /^ok .* is 2, with CAP_SYS_PTRACE$/],
    ['2', IPC_LOCK, /^fail .* is 2 — needs CAP_SYS_PTRACE, or sysctl kernel\.yama\.ptrace_scope=1$/],
    [
      '3',
      SYS_PTRACE,
      /^fail .* is 3 — needs sysctl kernel\.yama\.ptrace_scope=1 from the next boot on: 3 stays until then$/,
    ],
    ['nonsense', SYS_PTRACE, /^fail /],
  ])('of scope %s with capabilities %d', (scope, capabilities, expected) => {
    expect(scoped(scope, capabilities)).toMatch(expected);
  });

  it('is not there, or cannot be told', () => {
    expect(line(yama(hostWith({ '/proc/sys/kernel/ostype': 'Linux\n' })))).toBe('ok no Yama');
    expect(line(yama(hostWith({})))).toMatch(/^warn Yama: cannot tell/);
  });
});

describe('memlock', () => {
  const limited = (limit: string, capabilities = 0): string =>
    line(
      memlock(
        hostWith({
          '/proc/self/limits': `Limit      Soft Limit   Hard Limit   Units\nMax locked memory         ${limit}              ${limit}              bytes\n`,
          ...status(capabilities),
        }),
      ),
    );

  it('is none, or does not hold, or is told', () => {
    expect(limited('unlimited')).toBe('ok memory lock limit: none');
    expect(limited('8388608', IPC_LOCK)).toBe('ok memory lock limit: 8388608 bytes, and CAP_IPC_LOCK');
    expect(limited('8388608')).toMatch(/^warn memory lock limit: 8388608 bytes — .*ulimit -l/);
    expect(line(memlock(hostWith({})))).toMatch(/^warn memory lock limit: cannot tell/);
  });
});

describe('nodes', () => {
  const of = (entries: Record<string, Entry>): string => line(nodes(hostWith(entries)));

  it('are not there', () => {
    expect(of({ '/dev/null': '' })).toMatch(/^warn \/dev\/vfio: does not exist — .*run --device works without$/);
    expect(of({ '/dev/vfio/vfio': '' })).toMatch(/^warn \/dev\/vfio: has no device — /);
  });

  it('are open', () => {
    const groups = { '/dev/vfio/vfio': '', '/dev/vfio/26': '', '/dev/vfio/noiommu-3': '' };
    expect(of(groups)).toBe('ok /dev/vfio: open to this user: /dev/vfio/26, /dev/vfio/noiommu-3');
    expect(of({ '/dev/vfio/devices/vfio0': '', '/dev/iommu': '' })).toBe(
      'ok /dev/vfio: open to this user: /dev/vfio/devices/vfio0',
    );
  });

  it('lack what goes with them', () => {
    expect(of({ '/dev/vfio/26': '' })).toMatch(/^warn .*not open to this user: \/dev\/vfio\/vfio \(ENOENT\) — /);
    expect(of({ '/dev/vfio/devices/vfio0': '' })).toMatch(/not open to this user: \/dev\/iommu \(ENOENT\) — /);
    // a link to nowhere is a node that does not open, for root too
    const shut = { '/dev/vfio/vfio': '', '/dev/vfio/26': { link: '/nowhere' } };
    expect(of(shut)).toMatch(/^warn .*not open to this user: \/dev\/vfio\/26 — /);
  });
});

describe('container', () => {
  const of = (entries: Record<string, Entry>, env: NodeJS.ProcessEnv = {}): string =>
    line(container(hostWith(entries), env));
  const ALL = status(SYS_PTRACE | IPC_LOCK);

  it.each<[string, Record<string, Entry>, NodeJS.ProcessEnv]>([
    ['docker', { '/.dockerenv': '' }, {}],
    ['podman', { '/run/.containerenv': '' }, {}],
    ['systemd-nspawn', { '/run/systemd/container': 'systemd-nspawn\n' }, {}],
    ['lxc', {}, { container: 'lxc' }],
    ['kubepods', { '/proc/1/cgroup': '0::/kubepods/burstable/pod1\n' }, {}],
  ])('is seen: %s', (kind, entries, env) => {
    expect(of({ ...entries, ...ALL }, env)).toBe(`ok in a container (${kind}): no seccomp filter, no /dev/vfio`);
  });

  it('is not seen', () => {
    expect(of({ ...ALL, '/dev/vfio/vfio': '', '/proc/1/cgroup': '0::/init.scope\n' })).toBe(
      'ok no sign of a container: no seccomp filter',
    );
  });

  it('keeps from what cannot be told in full', () => {
    expect(of({ '/.dockerenv': '', ...status(0, 2) })).toMatch(
      /^warn in a container \(docker\): under a seccomp filter, no CAP_SYS_PTRACE, no CAP_IPC_LOCK, no \/dev\/vfio — .*cannot be told/,
    );
    expect(of({ '/.dockerenv': '' })).toMatch(/^warn in a container \(docker\); cannot tell what it is kept from/);
  });
});

describe('qemus', () => {
  function path(...names: string[]): string {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-path-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    for (const name of names) {
      writeFileSync(join(directory, name), '');
      chmodSync(join(directory, name), name.startsWith('qemu') ? 0o755 : 0o644);
    }
    return directory;
  }

  it.each([
    ['4.2.1', /^warn .*QEMU 4\.2\.1, which has no VFIO migration — QEMU 5\.2/],
    ['5.1.0', /^warn /],
    ['5.2.0', /^ok .*QEMU 5\.2\.0, speaks v1$/],
    ['7.2.22', /^ok .*speaks v1$/],
    ['8.0.0', /^ok .*speaks v2$/],
    ['11.1.3', /^ok .*speaks v2$/],
  ])('of version %s', (version, expected) => {
    expect(qemus(path('qemu-system-x86_64'), 'x64', () => version).map(line)).toEqual([
      expect.stringMatching(expected),
    ]);
  });

  it('are each told once, in the order of PATH', () => {
    const [first, second] = [path('qemu-system-x86_64', 'qemu-system-aarch64'), path('qemu-kvm')];
    symlinkSync(join(first, 'qemu-system-x86_64'), join(second, 'qemu-system-x86_64'));
    const asked: string[] = [];
    qemus(`${first}:${second}:${first}`, 'x64', (program) => {
      asked.push(program);
      return '7.2';
    });
    expect(asked.toSorted()).toEqual([join(first, 'qemu-system-x86_64'), join(second, 'qemu-kvm')].toSorted());
  });

  it('are not there, or do not say', () => {
    expect(qemus(path('other'), 'x64', () => '7.2').map(line)).toEqual([
      expect.stringMatching(/^warn QEMU: neither qemu-system-x86_64 nor qemu-kvm is in PATH — /),
    ]);
    const silent = (): never => {
      throw new ShimError('ERR_TARGET', 'q --version: prints no version');
    };
    expect(qemus(path('qemu-system-aarch64'), 'arm64', silent).map(line)).toEqual([
      'warn q --version: prints no version — cannot tell which protocol it speaks',
    ]);
  });
});

describe('runs', () => {
  it('say why one does not come to its end', () => {
    const tried = runs((args) => (args.includes('--device') ? 'was ended by SIGSYS' : undefined));
    expect(tried.map(line)).toEqual([
      'ok run: a command runs under the filter for devices of the kernel',
      'fail run --device: a command opens an emulated group: was ended by SIGSYS — docs/kernel-devices.md says what a host needs',
    ]);
  });
});
