import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VFIO_DEVICE_RESET } from '../../../src/abi/vfio.ts';
import { V1 } from '../../../src/v1/states.ts';
import { requireCli } from '../../../tools/vmm/cli.ts';
import { compiled, describeWithCompiler, executableDirectory } from '../../support/compiler.ts';
import { because, lacksNobody, NOBODY } from '../../support/host.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../../support/shim-run.ts';
import { SECTION, VfioPuppet } from '../../support/vfio-puppet.ts';
import { noise } from '../../support/bytes.ts';
import { poll } from '../../../src/vmm/deadline.ts';

const OK = { code: 0, signal: null };
const noNobody = lacksNobody();

describe('vfio-shim run', () => {
  const start = useShimRuns();
  let directory = '';
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(executableDirectory(), 'shim-run-test-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  function file(name: string, text: string, mode = 0o755): string {
    const path = join(directory, name);
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  }

  /** Runs a command to its end. */
  async function run(command: readonly string[], options: RunOptions = {}): Promise<ShimRun> {
    const started = start(command, options);
    started.end();
    await started.ended();
    return started;
  }

  /** What a run said besides where its directories are. */
  function said({ stderr }: ShimRun): string {
    return stderr.replace(/^vfio-shim: sysfsdev directories are in .*\n/, '');
  }

  describe.each([{ json: false }, { json: true }])('with json $json', ({ json }) => {
    it('ends with the status of the command', async () => {
      const [good, bad] = await Promise.all([run(['true'], { json }), run(['sh', '-c', 'exit 7'], { json })]);
      expect(good.exit).toEqual(OK);
      expect(bad.exit).toEqual({ code: 7, signal: null });
      expect(bad.reports().map(({ name }) => name)).toEqual(json ? ['0000:90:00.0'] : []);
      expect(said(bad)).toBe('');
    });

    it('dies of the signal that the command died of', async () => {
      const signals = ['SIGKILL', 'SIGTERM', 'SIGABRT', 'SIGUSR1'] as const;
      const command = (signal: NodeJS.Signals): string[] => [
        'sh',
        '-c',
        `ulimit -c 0; kill -${constants.signals[signal]} $$`,
      ];
      const ends = await Promise.all(signals.map(async (signal) => (await run(command(signal), { json })).exit));
      expect(ends).toEqual(signals.map((signal) => ({ code: null, signal })));
    });

    it('hands on the signals that it is sent', async () => {
      const signals = ['HUP', 'INT', 'QUIT', 'TERM', 'USR1', 'USR2'];
      const traps = signals.map((signal) => `trap 'echo got ${signal}; n=$((n+1))' ${signal}`).join('; ');
      const script = `${traps}; echo ready; while [ "\${n:-0}" -lt ${signals.length} ]; do sleep 0.02; done; exit 5`;
      const target = start(['sh', '-c', script], { json });
      await poll(
        () => (target.stdout.includes('ready') ? true : undefined),
        10_000,
        () => target.describe(),
      );
      for (const signal of signals) {
        target.signal(`SIG${signal}` as NodeJS.Signals);
        await poll(
          () => (target.stdout.includes(`got ${signal}`) ? true : undefined),
          5000,
          () => target.describe(),
        );
      }
      expect(await target.ended()).toEqual({ code: 5, signal: null });
    });

    it('says in one line that the command is not there, or not executable', async () => {
      const plain = file('plain', 'text', 0o644);
      const cases: [string[], number, string][] = [
        [['no-such-command-anywhere'], 127, 'no-such-command-anywhere: command not found'],
        [[join(directory, 'none')], 127, 'command not found'],
        [[''], 127, 'command not found'],
        [[plain], 126, 'permission denied'],
      ];
      const runs = await Promise.all(cases.map(async ([command]) => run(command, { json })));
      for (const [n, [, code, text]] of cases.entries()) {
        expect(runs[n]?.exit).toEqual({ code, signal: null });
        expect(runs[n]?.stderr).toMatch(new RegExp(`^vfio-shim: .*${text}.*\\n$`));
        expect(runs[n]?.stdout).toMatch(json ? /^\{"error":\{"code":"ERR_COMMAND",[^\n]*\}\n$/ : /^$/);
      }
    });

    it('passes input, output and errors through', async () => {
      const target = start(['sh', '-c', 'cat; echo error >&2'], { json });
      const text = Buffer.from(noise(300_000)).toString('base64');
      target.end(`${text}\n`);
      expect(await target.ended()).toEqual(OK);
      expect(target.stdout.split('\n')[0]).toBe(text);
      expect(said(target)).toBe('error\n');
    });
  });

  it('becomes the command: the same process, with the environment, the arguments and no more', async () => {
    const args = ['a b', '', '"quoted"', "it's", '$HOME', 'line\nbreak', 'ü€', '--device', '-x'];
    const viaNode = 'console.log(JSON.stringify([process.argv.slice(1), process.pid]))';
    const target = await run([process.execPath, '-e', viaNode, '--', ...args], { env: { MINE: 'yes' } });
    expect(JSON.parse(target.stdout)).toEqual([args, target.pid]);

    const env = await run(['env'], { devices: ['qat', 'mtty'], env: { MINE: 'y e s' } });
    const variables = new Map(env.stdout.split('\n').map((line) => line.split('=', 2) as [string, string]));
    expect(variables.get('MINE')).toBe('y e s');
    expect(variables.get('VFIO_SHIM_SYSFS')).toBe(env.directory);
    expect(env.stdout).toContain('VFIO_SHIM_DEVICES=/dev/vfio/9000=0000:90:00.0 /dev/vfio/9001=0000:91:00.0\n');
    expect(variables.has('VFIO_SHIM_REPORT_FD')).toBe(false);
    const json = await run(['env'], { json: true });
    expect(json.stdout).not.toContain('VFIO_SHIM_REPORT_FD');
  });

  it('leaves no signal blocked or ignored', async () => {
    const target = await run(['grep', '-E', '^Sig(Blk|Ign):', '/proc/self/status']);
    expect(target.stdout).toBe(`SigBlk:\t${'0'.repeat(16)}\nSigIgn:\t${'0'.repeat(16)}\n`);
  });

  it('finds the command on PATH as a shell does', async () => {
    mkdirSync(join(directory, 'bin'));
    mkdirSync(join(directory, 'bin2'));
    file('bin/tool', '#!/bin/sh\necho first\n', 0o644); // not executable: the next one is taken
    file('bin2/tool', '#!/bin/sh\necho second "$0"\n');
    mkdirSync(join(directory, 'bin/dir'));
    const PATH = `${directory}/bin:${directory}/bin2:/usr/bin:/bin`;
    const [tool, dir] = await Promise.all([run(['tool'], { env: { PATH } }), run(['dir-'], { env: { PATH } })]);
    expect(tool.stdout).toBe(`second ${directory}/bin2/tool\n`);
    expect(dir.exit).toEqual({ code: 127, signal: null });
  });

  it('refuses wrong options with status 2 and one line', async () => {
    const plain = file('occupied', 'a file');
    const cases: [RunOptions, RegExp][] = [
      [{ devices: [], options: ['--sysfs', join(directory, 'none')] }, /give at least one --device/],
      [{ devices: [], options: ['--mount-sysfs'] }, /--mount-sysfs: .*give at least one --device/],
      [{ devices: [], options: ['--iommufd'] }, /--iommufd: .*give at least one --device/],
      [{ devices: ['qatt'] }, /no driver "qatt"/],
      [{ devices: ['qat,size=x'] }, /size=x is not a whole number/],
      [{ devices: ['qat,seed=1,seed=1'] }, /seed is given twice/],
      [{ devices: ['qat,colour=3'] }, /no option "colour"/],
      [{ devices: ['qat,size=0'] }, /size=0/],
      [{ devices: ['qat,size=5G'] }, /a BAR of 8589934592 bytes/],
      [{ devices: [''] }, /no driver ""/],
      [{ devices: Array.from({ length: 65 }, () => 'qat') }, /at most 64 devices/],
      [{ options: ['--data-size', '5000'] }, /multiple of 4096/],
      [{ options: ['--data-size', '2G'] }, /multiple of 4096/],
      [{ options: ['--data-size', '0'] }, /multiple of 4096/],
      [{ options: ['--data-size', 'much'] }, /much: is not a whole number/],
      [{ options: ['--sysfs', plain] }, /--sysfs .*occupied/],
      [{ options: ['--sysfs', join(plain, 'below')] }, /--sysfs .*occupied/],
      [{ options: ['--sysfs', '/proc/nowhere'] }, /--sysfs .*nowhere/],
      [{ options: ['--sysfs', ''] }, /--sysfs.*empty/],
      [{ options: ['--trace', join(plain, 'below')] }, /--trace .*occupied/],
      [{ options: ['--record', join(plain, 'below')] }, /--record .*occupied/],
      [
        { options: ['--record', plain] },
        /--record .*occupied: has \d+ bytes in it, and a recording is a file of its own/,
      ],
      [{ options: ['--record-data'] }, /--record-data: give --record too/],
      [{ options: ['--record', '/dev/null', '--record-limit', '1K'] }, /--record-limit 1K: is less than 4096 bytes/],
      [{ options: ['--no-such-option'] }, /run: unknown option '--no-such-option' \(vfio-shim run --help shows/],
      [
        { options: ['--on-error', 'explode'] },
        /run: --on-error explode: is none of reset, report \(vfio-shim run --help /,
      ],
      [
        { options: ['--present', 'v7'] },
        /run: --present v7: is none of v1, v2, auto, draft-2018, draft-2019 \(vfio-shim run --help /,
      ],
    ];
    for (let at = 0; at < cases.length; at += 4) {
      const some = cases.slice(at, at + 4);
      const runs = await Promise.all(some.map(async ([options]) => run(['true'], options)));
      for (const [n, [, text]] of some.entries()) {
        expect(runs[n]?.exit, runs[n]?.describe()).toEqual({ code: 2, signal: null });
        expect(runs[n]?.stderr).toMatch(/^vfio-shim: [^\n]+\n$/);
        expect(runs[n]?.stderr).toMatch(text);
      }
    }
  });

  it('writes sysfs directories where it is told, again too, and leaves them', async () => {
    const sysfs = join(directory, 'sys/fs');
    for (const devices of [['qat'], ['qat', 'hisi']]) {
      const target = await run(['sh', '-c', 'ls "$VFIO_SHIM_SYSFS"'], { devices, options: ['--sysfs', sysfs] });
      expect(target.exit).toEqual(OK);
      expect(target.stderr).toBe('');
    }
    for (const [n, name] of ['0000:90:00.0', '0000:91:00.0'].entries()) {
      expect(readlinkSync(join(sysfs, name, 'iommu_group'))).toBe(`../.iommu_groups/${9000 + n}`);
      expect(existsSync(join(sysfs, name, 'iommu_group'))).toBe(true);
    }
  });

  it('serves several runs at once, each with its own devices', async () => {
    const seeds = [1, 2, 3, 4];
    const runs = seeds.map((seed) => start(['sleep', '0.5'], { devices: [`qat,seed=${seed}`], json: true }));
    for (const each of runs) expect(await each.ended()).toEqual(OK);
    const hashes = runs.map((each) => each.reports()[0]?.sha256);
    expect(new Set(hashes).size).toBe(seeds.length);
    expect(new Set(runs.map((each) => each.directory)).size).toBe(seeds.length);
  });

  it('says in one line that a run within a run cannot be', async () => {
    const { CLI } = await import('../../../tools/vmm/cli.ts');
    const nested = [
      process.execPath,
      CLI,
      'run',
      '--device',
      'qat',
      '--sysfs',
      join(directory, 'nested'),
      '--',
      'true',
    ];
    const outer = await run(nested);
    expect(outer.exit).toEqual({ code: 1, signal: null });
    expect(said(outer)).toMatch(/^vfio-shim: seccomp: .*there can be only one \[ERR_KERNEL_FEATURE, EBUSY\]\n$/);
  });

  it.skipIf(noNobody !== undefined)(`needs no privilege${because(noNobody)}`, async () => {
    const target = await run(['sh', '-c', 'id -u; ls "$VFIO_SHIM_SYSFS"'], { prefix: NOBODY, json: true });
    expect(target.exit, target.describe()).toEqual(OK);
    expect(target.stdout).toMatch(/^65534\n0000:90:00.0\n\{/);
  });
});

describeWithCompiler('the process that vfio-shim run becomes', () => {
  const start = useShimRuns();

  async function open(options: RunOptions = {}): Promise<VfioPuppet> {
    return new VfioPuppet(new Puppet(start([compiled('puppet')], options)));
  }

  it.each([{ json: false }, { json: true }])('has no child (json $json)', async ({ json }) => {
    const user = await open({ json });
    expect((await user.puppet.call('wait4', [-1, 0, 1, 0])).errno).toBe('ECHILD');
    const { devices } = await user.openDevices();
    await user.mmap(devices[0]?.fd ?? -1, 4096, (devices[0]?.region ?? 0n) + SECTION);
    expect((await user.puppet.call('wait4', [-1, 0, 1 | 0x4000_0000, 0])).errno).toBe('ECHILD');
    const { keeper, supervisor, others } = user.puppet.run.cast();
    expect(supervisor?.pid).toBeGreaterThan(0);
    const parents = [keeper, supervisor].map(
      (found) => readFileSync(`/proc/${found?.pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[1],
    );
    const ours = [user.puppet.run.pid, ...others.map(({ pid }) => pid)].map(String);
    expect(ours).not.toContain(parents[0]);
    expect(parents[1]).toBe(String(keeper?.pid));
  });

  it.skipIf(noNobody !== undefined)(`works for an ordinary user${because(noNobody)}`, async () => {
    const user = await open({ prefix: NOBODY });
    const { devices } = await user.openDevices();
    const [device] = devices;
    expect(await device?.state()).toBe(V1.RUNNING);
    expect((await user.mmap(device?.fd ?? -1, 4096, (device?.region ?? 0n) + SECTION)).errno).toBe('OK');
    expect((await user.ioctl(device?.fd ?? -1, VFIO_DEVICE_RESET)).errno).toBe('OK');
  });

  it.each<[string, RunOptions, boolean]>([
    ['without -v', {}, false],
    ['with -v', { options: ['-v'] }, true],
    ['with DEBUG', { env: { DEBUG: 'vfio-shim:*' } }, true],
  ])('says what devices go through where that is asked for (%s)', async (_, options, says) => {
    const user = await open(options);
    const { devices } = await user.openDevices();
    for (const state of [3, 2, 0]) await devices[0]?.enter(state);
    user.puppet.run.end();
    await user.puppet.run.ended();
    const lines = user.puppet.run.stderr.split('\n').filter((line) => line.includes('the device is in'));
    const expected = ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'].map(
      (state) => `vfio-shim: 0000:90:00.0: the device is in ${state}`,
    );
    expect(lines).toEqual(says ? expected : []);
  });
});

describe('vfio-shim run and the descriptors of its caller', () => {
  const start = useShimRuns();
  const cat = ['sh', '-c', 'cat <&5; echo there >&6; ls /proc/self/fd'];
  const prefix = ['sh', '-c', 'exec 5</etc/passwd 6>&1 </dev/null; exec "$@"', 'sh'];

  async function check(json: boolean): Promise<void> {
    const target = start(cat, { prefix, json });
    expect(await target.ended()).toEqual(OK);
    expect(target.stdout).toContain(`${readFileSync('/etc/passwd', 'latin1')}there\n`);
    // as many as without us: what is open besides, the shells' own included, is the caller's too
    const open = (stdout: string): string[] => stdout.split('there\n')[1]?.split('\n{')[0]?.trim().split('\n') ?? [];
    const [file = '', ...args] = [...prefix, ...cat];
    const without = spawnSync(file, args, { encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
    expect(open(target.stdout)).toEqual(open(without.stdout));
    expect(open(target.stdout)).toContain('5');
  }

  // libvirt, systemd and shells hand descriptors to a VMM this way
  it('passes them on, and none of its own', async () => check(false));
  it('passes them on with --json', async () => check(true));

  it('passes on one that it was told to write to as well', async () => {
    const pipe = ['sh', '-c', '"$@" 6>&1 | cat', 'sh'];
    const target = start(['sh', '-c', 'echo there >&6'], { prefix: pipe, options: ['--log', '/dev/fd/6'] });
    expect(await target.ended()).toEqual(OK);
    expect(target.stdout).toBe('there\n');
  });
});

describe('vfio-shim run, at the edges', () => {
  const start = useShimRuns();

  it('dies of SIGPIPE with --json as the command did', async () => {
    const target = start(['sh', '-c', 'kill -13 $$'], { json: true });
    expect(await target.ended()).toEqual({ code: null, signal: 'SIGPIPE' });
  });

  it.each(['ulimit -f 1000', 'ulimit -n 33'])('says in one line that a limit is too low (%s)', async (limit) => {
    const prefix = ['sh', '-c', `${limit}; exec "$@"`, 'sh'];
    const target = start(['true'], { prefix, devices: Array.from({ length: 6 }, () => 'qat') });
    expect(await target.ended()).toEqual({ code: 1, signal: null });
    expect(target.stderr).toMatch(/^(vfio-shim: sysfsdev .*\n)?vfio-shim: [^\n]+\n$/);
  });

  it.each(['/no/such/directory', '/proc'])(
    'says in one line that no temporary files can be made in %s',
    async (TMPDIR) => {
      const target = start(['true'], { env: { TMPDIR } });
      expect(await target.ended()).toEqual({ code: 1, signal: null });
      expect(target.stderr).toBe(
        `vfio-shim: cannot make a directory in ${TMPDIR}, which is TMPDIR or /tmp: no such file or directory; or give --sysfs [ERR_FILE, ENOENT]\n`,
      );
    },
  );

  it('says at the end, where that is asked for, that no device was bridged', async () => {
    const [verbose, debug, silent] = [
      start(['true'], { devices: [], options: ['-v'] }),
      start(['true'], { devices: [], env: { DEBUG: 'vfio-shim:*' } }),
      start(['true'], { devices: [] }),
    ];
    for (const run of [verbose, debug, silent]) expect(await run.ended()).toEqual({ code: 0, signal: null });
    const said = 'vfio-shim: no device was bridged: none was opened\n';
    expect([verbose.stderr, debug.stderr, silent.stderr]).toEqual([said, said, '']);
  });

  it('says in one line, with the errno, that it cannot start its keeper', async () => {
    // what the keeper is told is one argument, and the kernel has a limit for that: 128 KiB (linux/binfmts.h, MAX_ARG_STRLEN)
    const faults = Array.from({ length: 60 }, (_, n) => `fault=read@${n + 1}:EIO`).join(',');
    const devices = Array.from({ length: 64 }, () => `qat,${faults}`);
    const target = start(['true'], { devices });
    expect(await target.ended()).toEqual({ code: 1, signal: null });
    expect(target.stderr).toMatch(
      /^vfio-shim: sysfsdev .*\nvfio-shim: cannot start the keeper process: \/bin\/sh: E2BIG \[ERR_TARGET, E2BIG\]\n$/,
    );
    expect(existsSync(target.directory ?? '')).toBe(false);
  });

  it('says in one line, with the status of a shell, that a script has no interpreter', async () => {
    const directory = mkdtempSync(join(executableDirectory(), 'shim-script-'));
    try {
      const script = join(directory, 'script');
      writeFileSync(script, '#!/no/such/interpreter\n');
      chmodSync(script, 0o755);
      const target = start([script]);
      expect(await target.ended()).toEqual({ code: 127, signal: null });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
