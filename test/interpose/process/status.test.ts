import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseStatus, type Status } from '../../../src/interpose/process/status.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns, type ShimRun } from '../../support/shim-run.ts';
import { VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

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

  const gone = async (run: ShimRun): Promise<true> =>
    poll(
      () => (run.processes().length === 0 ? true : undefined),
      20_000,
      () => `the keeper ends\n${run.describe()}`,
    );

  it('says what the device is in and how far it is, across the death of a supervisor, and ends with the run', async () => {
    const { run, device } = await open();
    expect(statSync(socket()).mode & 0o777).toBe(0o600);
    await device.enter(V1.PRE_COPY);
    expect((await ask()).devices).toMatchObject([
      { name: '0000:90:00.0', device: 'qat,size=1M', protocol: 'v2', state: 'PRE_COPY', phase: 'saving', bytesDone: 0 },
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
  });

  it('holds up no call and no successor, whatever clients do', async () => {
    const { run, device } = await open();
    const clients = await Promise.all(Array.from({ length: 200 }, connected));
    for (const client of clients) client.on('error', () => {}).pause(); // none reads
    killHard(await run.supervisor());
    await device.enter(V1.PRE_COPY);
    expect(await device.state()).toBe(V1.PRE_COPY);
    for (const client of clients) client.destroy();
    expect((await ask()).devices).toMatchObject([{ state: 'PRE_COPY' }]);
  });

  it('takes the place of the socket of a run that was killed, and of nothing else', async () => {
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
