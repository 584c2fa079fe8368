import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseStatus, type Status } from '../../../src/interpose/process/status.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { cli, ended, OK, runCli } from '../../support/cli-run.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns, type ShimRun } from '../../support/shim-run.ts';
import { VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { patient } from '../../support/patience.ts';

/** Processes one after the other, on a machine that may be busy. */
const BUSY = patient(120_000);
/** How many descriptors more the keeper has for clients, as launch.ts makes room for. */
const CLIENTS = 24;

const descriptorsOf = (pid: number): string[] => readdirSync(`/proc/${pid}/fd`);

describeWithCompiler('run --status', () => {
  const start = useShimRuns();
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-status-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const socket = (): string => join(directory, 'socket');

  async function open(device = 'qat,size=1M'): Promise<{ run: ShimRun; device: DevicePuppet }> {
    const run = start([compiled('puppet')], { devices: [device], options: ['--status', socket()] });
    const [opened] = (await new VfioPuppet(new Puppet(run)).openDevices()).devices;
    if (opened === undefined) throw new Error('no device');
    return { run, device: opened };
  }

  const connected = async (): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const client = createConnection(socket());
      client.once('error', reject).once('connect', () => resolve(client));
    });

  async function ask(): Promise<Status> {
    const pieces: Buffer[] = [];
    for await (const piece of await connected()) pieces.push(piece as Buffer);
    return parseStatus(Buffer.concat(pieces).toString());
  }

  /** The answer, once there is one: others may be in front. */
  const asked = async (run: ShimRun): Promise<Status> =>
    poll(
      async () => ask().catch(() => undefined),
      20_000,
      () => `an answer\n${run.describe()}`,
    );

  const gone = async (run: ShimRun): Promise<true> =>
    poll(
      () => (run.processes().length === 0 ? true : undefined),
      20_000,
      () => `the keeper ends\n${run.describe()}`,
    );

  it(
    'says what the device is in and how far it is, across the death of a supervisor, and ends with the run',
    { timeout: BUSY },
    async () => {
      const { run, device } = await open();
      expect(statSync(socket()).mode & 0o777).toBe(0o600);
      await device.enter(V1.PRE_COPY);
      expect((await ask()).devices).toMatchObject([
        {
          name: '0000:90:00.0',
          device: 'qat,size=1M',
          protocol: 'v2',
          state: 'PRE_COPY',
          phase: 'saving',
          bytesDone: 0,
        },
      ]);
      const before = await run.supervisor();
      killHard(before);
      await device.enter(V1.STOP_COPY);
      const moved = (await device.save()).reduce((sum, { length }) => sum + length, 0);
      expect(moved).toBeGreaterThan(2 ** 20);
      const { takeovers, devices } = await ask();
      expect(takeovers).toBe(1);
      expect(devices).toMatchObject([{ state: 'STOP_COPY', bytesDone: moved }]);
      run.end();
      await run.ended();
      await gone(run);
      expect(existsSync(socket())).toBe(false);
    },
  );

  it('is followed across the death of a supervisor', { timeout: BUSY }, async () => {
    const { run, device } = await open();
    await device.enter(V1.PRE_COPY);
    const follower = cli(['status', socket(), '--follow', '--json']);
    const last = (): Status | undefined => {
      const lines = follower.stdout.split('\n').filter((line) => line !== '');
      return lines.length === 0 ? undefined : parseStatus(lines.at(-1) ?? '');
    };
    const until = async (state: string, takeovers: number): Promise<true> =>
      poll(
        () => (last()?.devices[0]?.state === state && last()?.takeovers === takeovers ? true : undefined),
        20_000,
        () => `${state}: ${follower.stdout}${follower.stderr}`,
      );
    await until('PRE_COPY', 0);
    killHard(await run.supervisor());
    await until('PRE_COPY', 1);
    await device.enter(V1.STOP_COPY);
    await until('STOP_COPY', 1);
    run.end();
    expect((await ended(follower)).exit).toEqual(OK);
  });

  it('holds up no call and no successor, whatever clients do', { timeout: BUSY }, async () => {
    const { run, device } = await open();
    const keeper = run.cast().keeper?.pid ?? -1;
    const before = descriptorsOf(keeper).length;
    const attempts = await Promise.allSettled(Array.from({ length: 1000 }, connected));
    // of those, as many as the system lets wait
    const clients = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? attempt.value : []));
    expect(clients.length).toBeGreaterThan(100);
    for (const [n, client] of clients.entries()) {
      client.on('error', () => {}).pause(); // none reads
      if (n % 2 === 0) client.write(Buffer.alloc(2 ** 16, n));
    }
    expect(descriptorsOf(keeper).length - before).toBeLessThanOrEqual(CLIENTS);
    killHard(await run.supervisor());
    await device.enter(V1.PRE_COPY);
    expect(await device.state()).toBe(V1.PRE_COPY);
    expect(descriptorsOf(keeper).length - before).toBeLessThanOrEqual(CLIENTS);
    for (const client of clients) client.destroy();
    expect((await asked(run)).devices).toMatchObject([{ state: 'PRE_COPY' }]);
    await poll(
      () => (descriptorsOf(keeper).length <= before ? true : undefined),
      20_000,
      () => `${before} descriptors: ${descriptorsOf(keeper).join(' ')}`,
    );
  });

  it('has a socket per process in a directory, which the keeper alone holds', { timeout: BUSY }, async () => {
    const run = start([compiled('puppet')], {
      devices: ['qat,size=64K', 'vendor-v1,size=64K'],
      options: ['--status', directory],
      leavesDirectory: true,
    });
    await new VfioPuppet(new Puppet(run)).openDevices(2);
    expect(readdirSync(directory)).toEqual([`${run.pid}.sock`]);
    const path = join(directory, `${run.pid}.sock`);
    const { exit, stdout } = await runCli(['status', path]);
    const rows = stdout.trimEnd().split('\n');
    expect([exit, rows.map((row) => row.split(/ +/).slice(0, 3))]).toEqual([
      OK,
      [
        ['DEVICE', 'PROTOCOL', 'STATE'],
        ['0000:90:00.0', 'v2', expect.stringMatching(/^(RUNNING|-)$/)],
        ['0000:91:00.0', 'v1', expect.stringMatching(/^(RUNNING|-)$/)],
      ],
    ]);
    killHard(run.cast().keeper?.pid ?? -1);
    const nobody = async (): Promise<true | undefined> =>
      (await runCli(['status', path])).stderr.includes('ECONNREFUSED') ? true : undefined;
    await poll(nobody, 20_000, () => `nobody listens\n${run.describe()}`);
    killHard(await run.supervisor());
    run.signal('SIGKILL');
    await gone(run);
    rmSync(run.directory ?? '', { recursive: true });
  });

  it('takes the place of the socket of a run that was killed, and of nothing else', { timeout: BUSY }, async () => {
    const { run } = await open();
    const second = start([compiled('puppet')], { options: ['--status', socket()] });
    expect(await second.ended()).toEqual({ code: 2, signal: null });
    expect(second.stderr).toContain('a server listens there already');
    const keeper = run.cast().keeper?.pid ?? -1;
    killHard(keeper);
    killHard(await run.supervisor());
    run.signal('SIGKILL');
    await gone(run);
    rmSync(run.directory ?? '', { recursive: true });
    expect(existsSync(socket())).toBe(true);
    const { run: third } = await open();
    await ask();
    third.end();
    await third.ended();
    await gone(third);
    writeFileSync(socket(), '');
    const fourth = start([compiled('puppet')], { options: ['--status', socket()] });
    expect(await fourth.ended()).toEqual({ code: 2, signal: null });
    expect(fourth.stderr).toContain('there is a file that is no socket');
  });
});
