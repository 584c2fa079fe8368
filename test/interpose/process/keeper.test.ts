import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { CLI } from '../../../tools/vmm/cli.ts';
import { compiled, compiledLibrary, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../../support/shim-run.ts';
import { VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';

const root = process.getuid?.() === 0;
const setpriv = spawnSync('setpriv', ['--version']).status === 0;
const hasPrlimit = spawnSync('prlimit', ['--version']).status === 0;
const LONG = 60_000;

interface Opened {
  readonly run: ShimRun;
  readonly user: VfioPuppet;
  readonly device: DevicePuppet;
  readonly keeper: number;
  readonly supervisor: number;
}

/** Sets a resource limit of a process, as its user: the soft one only, so that it can be taken back. */
function limit(pid: number, resource: string, user: readonly string[] = []): void {
  const [file, ...args] = [...user, 'prlimit', '--pid', String(pid), resource];
  const { status, stderr } = spawnSync(file ?? '', args, { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
}

/** The TCP ports that a process listens on. */
function listening(pid: number): string[] {
  const sockets = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      } catch {
        return undefined; // closed meanwhile
      }
    }),
  );
  const LISTEN = '0A';
  return ['tcp', 'tcp6']
    .filter((table) => existsSync(`/proc/${pid}/net/${table}`))
    .flatMap((table) => readFileSync(`/proc/${pid}/net/${table}`, 'latin1').trim().split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode]) => state === LISTEN && sockets.has(inode))
    .map(([, address = '']) => address);
}

/** True once a process catches SIGUSR1, which before would end it. */
function catchesUsr1(pid: number): boolean {
  try {
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? '0';
    return ((BigInt(`0x${caught}`) >> BigInt(constants.signals.SIGUSR1 - 1)) & 1n) === 1n;
  } catch {
    return false; // gone meanwhile
  }
}

describeWithCompiler('a keeper', () => {
  const start = useShimRuns();

  async function open(options: RunOptions = {}): Promise<Opened> {
    const run = start([compiled('puppet')], options);
    const user = new VfioPuppet(new Puppet(run));
    const { devices } = await user.openDevices();
    const supervisor = await run.supervisor();
    return { run, user, device: devices[0] as DevicePuppet, keeper: run.cast().keeper?.pid ?? -1, supervisor };
  }

  /** Waits until neither keeper nor supervisor are left. */
  async function alone({ run }: Opened): Promise<void> {
    const others = (): number =>
      [run.cast().keeper, run.cast().supervisor].filter((found) => found !== undefined).length;
    await poll(
      () => (others() === 0 ? true : undefined),
      LONG,
      () => run.describe(),
    );
  }

  it('has the successor that the first supervisor was, whatever becomes of the package and of Node', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'shim-package-'));
    try {
      const copy = join(directory, 'vfio-shim');
      const node = join(directory, 'node');
      const modules = join(dirname(dirname(dirname(CLI))), 'node_modules');
      cpSync(dirname(dirname(CLI)), join(copy, 'dist'), { recursive: true });
      cpSync(join(dirname(dirname(dirname(CLI))), 'package.json'), join(copy, 'package.json'));
      for (const name of ['koffi', '@koromix']) {
        cpSync(join(modules, name), join(copy, 'node_modules', name), { recursive: true, dereference: true });
      }
      cpSync(process.execPath, node);
      const { run, device, supervisor } = await open({ cli: join(copy, 'dist/cli/main.js'), node });
      expect(run.cast().supervisor?.executable).toBe(node);
      // replaced file by file, then removed, then another one in its place
      for (const name of readdirSync(copy, { recursive: true, encoding: 'utf8' })) {
        if (/\.(c?js|json)$/.test(name)) writeFileSync(join(copy, name), 'throw new Error("another version");');
      }
      await device.enter(V1.PRE_COPY);
      killHard(supervisor);
      expect(await device.state()).toBe(V1.PRE_COPY);
      rmSync(directory, { recursive: true });
      const second = await run.supervisor(supervisor);
      killHard(second);
      expect(await device.state()).toBe(V1.PRE_COPY);
      mkdirSync(directory);
      writeFileSync(node, '#!/bin/false\n', { mode: 0o755 });
      killHard(await run.supervisor(second));
      await device.enter(V1.STOP_COPY);
      expect(await device.state()).toBe(V1.STOP_COPY);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  /** A run whose keeper can be made unable to have a successor, which then ends before it is Node. */
  async function barren(): Promise<Opened & { stillborn: () => void }> {
    const directory = mkdtempSync(join(tmpdir(), 'shim-stillborn-'));
    onTestFinished(() => {
      rmSync(directory, { recursive: true });
    });
    const path = join(directory, 'from-now-on');
    const opened = await open({ env: { LD_PRELOAD: compiledLibrary('stillborn'), STILLBORN: path } });
    return {
      ...opened,
      stillborn: () => {
        writeFileSync(path, '');
      },
    };
  }

  it('gives up, and says so, where no successor can begin: calls fail, and wait for nobody', async () => {
    const { stillborn, ...opened } = await barren();
    const { run, device, user, supervisor } = opened;
    stillborn();
    killHard(supervisor);
    const { errno } = await user.puppet.script(
      `new late 8; ${callText('pread64', [device.fd, '$late', 4, device.region])}`,
      0,
      LONG,
    );
    expect(errno).toBe('ENOSYS');
    await alone(opened);
    expect(run.stderr).toContain('the supervisor ended (status 70), a successor takes over\n');
    expect(run.stderr).toContain(
      '10 supervisors in a row could not begin: trapped calls fail with ENOSYS from now on\n',
    );
    // one line for the one that was killed, one for those that could not begin
    expect(run.stderr.match(/takes over/g)?.length).toBe(2);
    expect((await user.puppet.call('getpid', [])).errno).toBe('OK');
    expect(existsSync(run.directory ?? '')).toBe(false);
  });

  it('ends with its target, also where it cannot have a successor', async () => {
    const { stillborn, ...opened } = await barren();
    const { run, keeper, supervisor } = opened;
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(keeper, signal); // of no effect
    stillborn();
    process.kill(keeper, 'SIGSTOP');
    killHard(supervisor);
    run.signal('SIGKILL');
    await run.ended();
    process.kill(keeper, 'SIGCONT');
    await alone(opened);
  });

  const prefix =
    root && setpriv
      ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all']
      : [];
  it.runIf(hasPrlimit && !(root && !setpriv))(
    'tries again where the system has no process for a successor',
    async () => {
      const { run, device, keeper, supervisor } = await open({ prefix });
      const before = /^Max processes\s+(\S+)/m.exec(readFileSync(`/proc/${keeper}/limits`, 'latin1'))?.[1];
      limit(keeper, '--nproc=1:', prefix); // root's processes are not limited
      killHard(supervisor);
      const refused = /no supervisor could be started \(spawn .* EAGAIN\), it is tried again\n/;
      await poll(
        () => (refused.test(run.stderr) ? true : undefined),
        LONG,
        () => run.describe(),
      );
      limit(keeper, `--nproc=${before}:`, prefix);
      expect(await device.state()).toBe(V1.RUNNING);
      expect(run.stderr.split('no supervisor could be started').length).toBe(2); // said once
      expect(run.cast().keeper?.pid).toBe(keeper);
    },
  );

  it('opens no debugger, nor do its supervisors, whenever they are sent SIGUSR1', async () => {
    const { run, device, keeper, supervisor } = await open({ env: { NODE_OPTIONS: '--no-deprecation' } });
    const send = async (pid: number): Promise<void> => {
      await poll(() => (catchesUsr1(pid) ? true : undefined), LONG, `process ${pid} starts`, 1);
      for (let n = 0; n < 20; n += 1) process.kill(pid, 'SIGUSR1');
    };
    await Promise.all([send(keeper), send(supervisor)]);
    expect(await device.state()).toBe(V1.RUNNING);
    for (let last = supervisor, n = 0; n < 3; n += 1) {
      killHard(last);
      last = await run.supervisor(last);
      await send(last); // while it starts
      expect(await device.state()).toBe(V1.RUNNING);
      expect([...listening(keeper), ...listening(last)]).toEqual([]);
      for (const pid of [keeper, last])
        expect(readFileSync(`/proc/${pid}/environ`, 'latin1')).not.toMatch(/NODE_OPTIONS/);
    }
    expect(readFileSync(`/proc/${run.pid}/environ`, 'latin1')).toContain('NODE_OPTIONS=--no-deprecation\0');
  });
});
