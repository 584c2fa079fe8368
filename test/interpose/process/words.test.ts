import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ci } from '../../../tools/vmm/binaries.ts';
import { requireCli } from '../../../tools/vmm/cli.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';

const OK = { code: 0, signal: null };
const QEMU = 'qemu-system-x86_64';
/** Debian has it where only root's PATH looks. */
const LOGROTATE = '/usr/sbin/logrotate';
const hasLogrotate = existsSync(LOGROTATE);
const hasQemu = spawnSync(QEMU, ['--version']).status === 0;
const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, O_CREAT } = constants;

let directory = '';
let files = 0;
beforeAll(() => {
  requireCli();
  directory = mkdtempSync(join(tmpdir(), 'shim-words-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function newName(): string {
  return join(directory, String((files += 1)));
}

/** A named pipe that nobody reads, opened by this process so that it stays. */
function fifo(): { path: string; fd: number } {
  const path = newName();
  expect(spawnSync('mkfifo', [path]).status).toBe(0);
  return { path, fd: openSync(path, O_RDWR | O_NONBLOCK) };
}

/** Fills a pipe to the last byte. */
function fill(fd: number): void {
  for (const size of [4096, 1]) {
    try {
      for (;;) writeSync(fd, Buffer.alloc(size, '.'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

/** What a pipe holds now. */
function drain(fd: number): string {
  const bytes = Buffer.alloc(1 << 20);
  let text = '';
  try {
    for (let length = 1; length > 0;) {
      length = readSync(fd, bytes);
      text += bytes.subarray(0, length).toString();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
  }
  return text;
}

/** The files that a process has open. */
function links(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile: a supervisor goes on while it is looked at
    }
  });
}

async function saying(read: () => string, what: RegExp, run: ShimRun): Promise<string> {
  return poll(
    () => (what.test(read()) ? read() : undefined),
    20_000,
    () => `${what} in ${read()}\n${run.describe()}`,
  );
}

describe('vfio-shim run and who waits for the end of its output', () => {
  const start = useShimRuns();

  /** A program that leaves a child, which is a daemon or a VM that made itself one, and says its process id. */
  const daemon = ['sh', '-c', 'sleep 1000 </dev/null >/dev/null 2>&1 & echo $!'];

  it.each<[string, RunOptions]>([
    ['bridging', { devices: [] }],
    ['bridging, with -v', { devices: [], options: ['-v'] }],
    ['emulating', {}],
    ['with a log', { options: ['--log', '/dev/null'] }],
  ])('holds up nobody while a daemon goes on under it (%s)', async (_, options) => {
    const run = start(daemon, options);
    expect(await run.ended()).toEqual(OK); // all that had its output have closed it
    const pid = Number(run.stdout);
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    expect(run.cast().keeper?.pid).toBeGreaterThan(0);
    killHard(pid);
  });

  it.skipIf(!hasQemu)(
    'lets QEMU become a daemon, as libvirt has it when it asks what QEMU can (with QEMU)',
    async () => {
      const pidfile = newName();
      const command = [QEMU, ...'-S -no-user-config -nodefaults -nographic -machine none'.split(' ')];
      const run = start([...command, '-pidfile', pidfile, '-daemonize'], { devices: [], options: ['--present', 'v1'] });
      expect(await run.ended()).toEqual(OK);
      expect(run.stderr).toBe('');
      const pid = Number(readFileSync(pidfile, 'utf8'));
      expect(readlinkSync(`/proc/${pid}/exe`)).toContain('qemu');
      process.kill(pid, 'SIGTERM');
    },
  );

  it('keeps no descriptor, directory, session or terminal of its caller', async () => {
    const prefix = ['sh', '-c', 'cd "$1"; shift; exec 7<"$PWD" 8</etc/passwd 9>&2; exec "$@"', 'sh', directory];
    const run = start(['sh', '-c', 'echo started; read line'], { prefix });
    await saying(() => run.stdout, /started/, run);
    await run.supervisor();
    const theirs = new Set(links(run.pid));
    expect(theirs.size).toBeGreaterThan(4);
    const { keeper, supervisor } = run.cast();
    for (const found of [keeper, supervisor]) {
      const pid = found?.pid ?? -1;
      expect(links(pid).filter((link) => theirs.has(link))).toEqual([]);
      expect([0, 1].map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))).toEqual(['/dev/null', '/dev/null']);
      expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
      const [, , , session, terminal] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      expect([Number(session), terminal]).toEqual([keeper?.pid, '0']);
    }
  });
});

describeWithCompiler('what keeper and supervisor have to say', () => {
  const start = useShimRuns();

  interface Opened {
    readonly run: ShimRun;
    readonly user: VfioPuppet;
    readonly device: DevicePuppet;
    /** The supervisor's process id. */
    readonly pid: number;
  }

  async function open(options: RunOptions = {}, command = [compiled('puppet')]): Promise<Opened> {
    const run = start(command, { ...options, options: ['-v', ...(options.options ?? [])] });
    const user = new VfioPuppet(new Puppet(run));
    const { devices } = await user.openDevices();
    return { run, user, device: devices[0] as DevicePuppet, pid: await run.supervisor() };
  }

  /** Has another file take the number of the target's stderr. */
  async function replaceStderr({ user }: Opened, path: string, flags: number): Promise<void> {
    const fd = value(await user.open(path, 0, flags));
    expect(value(await user.puppet.call('dup3', [fd, 2, 0]))).toBe(2);
    value(await user.puppet.call('close', [fd]));
  }

  it("goes where the target's stderr is at that moment", async () => {
    const opened = await open();
    const { run, device, pid } = opened;
    await saying(() => run.stderr, /the device is in RUNNING/, run);
    const path = newName();
    await replaceStderr(opened, path, O_WRONLY | O_CREAT);
    await device.enter(V1.PRE_COPY);
    expect(readFileSync(path, 'utf8')).toBe('vfio-shim: 0000:90:00.0: the device is in PRE_COPY\n');
    killHard(pid);
    await saying(() => readFileSync(path, 'utf8'), /the supervisor ended \(SIGKILL\), a successor takes over\n$/, run);
    await device.enter(V1.STOP_COPY);
    await saying(() => readFileSync(path, 'utf8'), /STOP_COPY\n$/, run);
    expect(run.stderr).not.toContain('PRE_COPY');
  });

  it('is not written into what has got the number of a stderr that was closed, and is counted', async () => {
    const opened = await open();
    const { run, user, device } = opened;
    const saved = value(await user.puppet.call('dup', [2]));
    const disk = newName();
    writeFileSync(disk, 'the disk of a guest');
    await replaceStderr(opened, disk, O_RDWR);
    for (const state of [3, 2]) await device.enter(state);
    value(await user.puppet.call('close', [2]));
    await device.enter(V1.STOP);
    value(await user.puppet.call('dup3', [saved, 2, 0]));
    await device.enter(V1.RUNNING);
    await saying(() => run.stderr, /\nvfio-shim: 3 messages were dropped\nvfio-shim: .* is in RUNNING\n/, run);
    expect(readFileSync(disk, 'utf8')).toBe('the disk of a guest');
  });

  it('goes to the stderr of the process that calls where the first one has ended', async () => {
    const { path, fd } = fifo(); // the input of a command ends for Node with its first process
    const run = start(['sh', '-c', `${compiled('puppet')} <${path} &`], { options: ['-v'] });
    await poll(() => run.exit, 10_000, 'the shell ends');
    const host = {
      write: (text: string) => writeSync(fd, text),
      onLine: (listener: (line: string) => void) => run.onLine(listener),
      describe: () => run.describe(),
    };
    const { devices } = await new VfioPuppet(new Puppet(host as unknown as ShimRun)).openDevices();
    await devices[0]?.enter(3);
    await saying(() => run.stderr, /the device is in PRE_COPY/, run);
    closeSync(fd);
    await run.ended();
  });

  it('goes to a file where that is asked for, which nobody else may read', async () => {
    mkdirSync(join(directory, 'logs'));
    const log = join(directory, 'logs/log');
    const { run, device, pid } = await open({ options: ['--log', log] });
    await device.enter(V1.PRE_COPY);
    killHard(pid);
    await device.enter(V1.STOP_COPY);
    const text = await saying(() => readFileSync(log, 'utf8'), /STOP_COPY/, run);
    expect(text).toMatch(
      /^vfio-shim: .*RUNNING\nvfio-shim: .*PRE_COPY\nvfio-shim: .*takes over\nvfio-shim: .*STOP_COPY\n$/,
    );
    expect(run.stderr).toMatch(/^vfio-shim: sysfsdev directories are in .*\n$/);
    expect(statSync(log).mode & 0o777).toBe(0o600);
    // the file may go, with its directory
    rmSync(join(directory, 'logs'), { recursive: true });
    killHard(await run.supervisor(pid));
    await device.enter(V1.RUNNING);
    expect(await device.state()).toBe(V1.RUNNING);
  });

  /** What a device goes through, as often as it takes, and the lines about it. */
  const round = [V1.PRE_COPY, V1.STOP_COPY, V1.STOP, V1.RUNNING] as const;
  const names = ['PRE_COPY', 'STOP_COPY', 'STOP', 'RUNNING'] as const;
  const linesOf = (rounds: number): string[] =>
    Array.from({ length: rounds }, () =>
      names.map((name) => `vfio-shim: 0000:90:00.0: the device is in ${name}\n`),
    ).flat();

  /** The files that keeper and supervisor have open in a directory. */
  const openIn = (run: ShimRun, place: string): string[] =>
    [run.cast().keeper, run.cast().supervisor]
      .flatMap((found) => links(found?.pid ?? -1))
      .filter((file) => file.startsWith(place));

  it.each<[string, (log: string, rotated: string) => void]>([
    [
      'moved and made anew',
      (log, rotated) => (renameSync(log, rotated), writeFileSync(log, '', { flag: 'wx', mode: 0o640 })),
    ],
    ['moved', renameSync],
    ['copied and truncated', (log, rotated) => (copyFileSync(log, rotated), truncateSync(log))],
  ])('loses and doubles no line if its log is %s while it runs', async (_, rotate) => {
    const log = newName();
    const { run, device, pid } = await open({ options: ['--log', log] });
    const rotated = Array.from({ length: 20 }, () => newName());
    for (const [n, name] of rotated.entries()) {
      for (const state of round) await device.enter(state);
      rotate(log, name);
      if (n === 9) killHard(pid); // the keeper speaks, and a successor from then on
    }
    for (const state of round) await device.enter(state);
    const files = [...rotated, log].map((file) => readFileSync(file, 'utf8'));
    const [first, ...others] = files.join('').match(/.*\n/g) ?? [];
    expect(first).toMatch(/RUNNING\n$/); // as it was opened
    expect(others.filter((line) => line.endsWith('takes over\n'))).toHaveLength(1);
    expect(others.filter((line) => !line.endsWith('takes over\n'))).toEqual(linesOf(21));
    expect(files.filter((text) => text === '')).toEqual([]);
    expect(openIn(run, directory)).toEqual([]);
  });

  it.skipIf(!hasLogrotate && !ci).each(['create 0600', 'nocreate', 'copytruncate'])(
    'is whole in a log that logrotate rotates with %s (with logrotate)',
    async (how) => {
      const place = mkdtempSync(join(directory, 'rotated-'));
      const log = join(place, 'log');
      const { run, device } = await open({ options: ['--log', log] });
      writeFileSync(
        join(place, 'conf'),
        `${log} {\n  size 1\n  rotate 100\n  compress\n  delaycompress\n  ${how}\n}\n`,
      );
      for (let n = 0; n < 4; n += 1) {
        for (const state of round) await device.enter(state);
        const { status, stderr } = spawnSync(LOGROTATE, ['--state', join(place, 'state'), join(place, 'conf')], {
          encoding: 'utf8',
        });
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      }
      for (const state of round) await device.enter(state);
      const read = (name: string): string => {
        const bytes = readFileSync(join(place, name));
        return (name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
      };
      expect(
        readdirSync(place)
          .filter((name) => name.startsWith('log'))
          .toSorted(),
      ).toEqual(['log', 'log.1', 'log.2.gz', 'log.3.gz', 'log.4.gz']);
      const files = ['log.4.gz', 'log.3.gz', 'log.2.gz', 'log.1', 'log'];
      const [, ...lines] = files.map(read).join('').match(/.*\n/g) ?? [];
      expect(lines).toEqual(linesOf(5));
      expect(openIn(run, place)).toEqual([]);
    },
  );

  it.each<[string, string, string]>([
    ['is closed', 'bash -c \'exec "$0" "$@" 2> >(exec head -c 0)\'', ''],
    ['is full', 'sh -c \'exec "$0" "$@" 2>/dev/full\'', ''],
  ])('costs the target nothing where its stderr %s', async (_, shell) => {
    const prefix = [shell.slice(0, shell.indexOf(' ')), '-c', shell.slice(shell.indexOf("'") + 1, -1)];
    const sysfs = newName(); // what the launcher says of a fresh one would end it
    const { run, device, pid } = await open({ prefix, options: ['--sysfs', sysfs] });
    const { keeper } = run.cast();
    for (const state of [3, 2, 0, 1]) await device.enter(state);
    expect(await run.supervisor()).toBe(pid);
    killHard(pid);
    for (const state of [3, 2, 0, 1]) await device.enter(state);
    expect(run.cast().keeper?.pid).toBe(keeper?.pid);
    killHard(await run.supervisor(pid));
    expect(await device.state()).toBe(V1.RUNNING);
  });

  it('does not wait for a pipe that nobody reads, and says how much was dropped', async () => {
    const pipe = fifo();
    const prefix = ['sh', '-c', 'exec "$@" 2>"$STDERR"', 'sh'];
    const { run, device, pid } = await open({ prefix, env: { STDERR: pipe.path }, options: ['--sysfs', newName()] });
    fill(pipe.fd);
    for (const state of [3, 2, 0]) await device.enter(state);
    killHard(pid); // the keeper has something to say too
    await device.enter(V1.RUNNING);
    drain(pipe.fd);
    await device.enter(V1.PRE_COPY);
    let text = '';
    await saying(() => (text += drain(pipe.fd)), /PRE_COPY\n$/, run);
    // three of the supervisor that was killed, who took the number with it; its successor's one
    expect(text).toBe('vfio-shim: 1 messages were dropped\nvfio-shim: 0000:90:00.0: the device is in PRE_COPY\n');
    killHard(await run.supervisor(pid));
    const expected = /vfio-shim: 1 messages were dropped\nvfio-shim: the supervisor ended \(SIGKILL\).*\n/;
    await saying(() => (text += drain(pipe.fd)), expected, run);
    closeSync(pipe.fd);
  });

  it('says of a trace that cannot be written that there is none, once', async () => {
    const { run, device, pid } = await open({ options: ['--trace', '/dev/full'] });
    for (const state of [3, 2, 0]) await device.enter(state);
    expect(await run.supervisor()).toBe(pid);
    await saying(() => run.stderr, /--trace: .*/, run);
    expect(run.stderr.match(/--trace: .*/g)).toEqual([
      '--trace: the file cannot be written (ENOSPC), nothing more is recorded',
    ]);
  });

  it('traces into a pipe, and makes nobody wait who does not read it', async () => {
    const pipe = fifo();
    const { run, device, pid } = await open({ options: ['--trace', pipe.path] });
    let text = '';
    await saying(() => (text += drain(pipe.fd)), /VFIO_DEVICE_GET_INFO = 0/, run);
    fill(pipe.fd);
    for (const state of [3, 2, 0]) await device.enter(state);
    expect(await run.supervisor()).toBe(pid);
    await saying(() => (text += drain(pipe.fd)), /device_state <- 0 \(STOP\) = 4/, run);
    closeSync(pipe.fd);
  });

  it('traces into a file that only its owner may read, whose directory may go', async () => {
    mkdirSync(join(directory, 'traces'));
    const trace = join(directory, 'traces/trace');
    const { run, device, pid } = await open({ options: ['--trace', trace] });
    expect(statSync(trace).mode & 0o777).toBe(0o600);
    const fd = openSync(trace, O_RDONLY);
    rmSync(join(directory, 'traces'), { recursive: true });
    killHard(pid);
    await device.enter(V1.PRE_COPY);
    await run.supervisor(pid);
    await saying(() => readFileSync(fd, 'utf8'), /the supervisor died \(SIGKILL\), another takes over/, run);
    closeSync(fd);
  });
});

describe('vfio-shim run and the files it is to write', () => {
  const start = useShimRuns();

  it.each(['--log', '--trace', '--record'])('says in one line that there can be no %s', async (option) => {
    const other = newName();
    const cases: [string, RegExp][] = [
      [join(directory, 'none/log'), /no such file/],
      ...(option === '--record' ? [] : [[directory, /directory/] as [string, RegExp]]), // which gets a file for each run
      [fifoWithoutReader(), /ENXIO/],
    ];
    if (process.getuid?.() === 0) {
      symlinkSync('target', other);
      lchownSync(other, 65534, 65534);
      cases.push([other, /symbolic link of another user/]);
    }
    for (const [file, why] of cases) {
      const run = start(['true'], { options: [option, file] });
      expect(await run.ended(), run.describe()).toEqual({ code: 2, signal: null });
      expect(run.stderr).toMatch(/^vfio-shim: [^\n]+\n$/);
      expect(run.stderr).toContain(`${option} ${file}: `);
      expect(run.stderr).toMatch(why);
    }
    expect(existsSync(join(directory, 'target'))).toBe(false);
  });

  function fifoWithoutReader(): string {
    const { path, fd } = fifo();
    closeSync(fd);
    return path;
  }
});
