import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VFIO_USER_REGION_READ, vfio_user_region_access } from '../../src/abi/vfio-user.ts';
import { judgeRecording } from '../../src/check/index.ts';
import type { ProxyOrder } from '../../src/cli/proxy.ts';
import type { AccessLine } from '../../src/recording/format.ts';
import { readRecording, type RecordingEntry } from '../../src/recording/reader.ts';
import { parseSize } from '../../src/sim/size.ts';
import { V2 } from '../../src/v2/states.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli } from '../support/cli-run.ts';
import { TestClient, useServices } from '../support/vfio-user.ts';

const services = useServices();
const SIZE = 65_536;
const LIMIT = '256M';

describe('a recording', () => {
  let directory = '';
  beforeEach(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-user-recording-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const file = (): string => join(directory, 'recording.jsonl');
  const asked = { recordData: true, recordLimit: LIMIT } as const;
  const lines = (): RecordingEntry[] => [...readRecording([readFileSync(file())])];
  const accesses = (): AccessLine[] => lines().filter((line): line is AccessLine => line.kind === 'access');

  /** The migration data that went one way, as FILE.data has it; each line's hash is that of its bytes. */
  function dataOf(direction: 'out' | 'in'): Buffer {
    const kept = readFileSync(`${file()}.data`);
    const pieces = accesses().flatMap(({ call, data, moved }) => {
      const way = moved?.direction ?? (call.protocol !== 'vfio' && call.call === 'data' ? call.direction : undefined);
      if (data === undefined || way !== direction) return [];
      const bytes = kept.subarray(data.at, (data.at ?? 0) + data.bytes);
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(data.sha256);
      return [bytes];
    });
    return Buffer.concat(pieces);
  }

  /** Saves a device and loads it again, as a VMM does, and returns what went. */
  async function migrated(path: string): Promise<{ protocol: string; data: Buffer }> {
    const client = new TestClient(path);
    const before = client.bar(SIZE);
    const pieces = client.save();
    client.restore(pieces);
    expect(client.bar(SIZE)).toBeBytes(before);
    const { protocol } = client.device;
    client.close();
    await services().stop();
    return { protocol, data: Buffer.concat(pieces) };
  }

  function checkWhole(protocol: string, driver: string, data: Uint8Array): void {
    const all = lines();
    expect(all.at(-1)).toMatchObject({ kind: 'end', why: 'ended' });
    expect(all.filter(({ kind }) => kind === 'opened' || kind === 'closed')).toMatchObject([
      { kind: 'opened', protocol: driver, pid: process.pid, tid: process.pid },
      { kind: 'closed' },
    ]);
    const spoken = accesses().flatMap(({ call }) => (call.protocol === 'vfio' ? [] : [call.protocol]));
    expect(new Set(spoken)).toEqual(new Set([protocol]));
    const nested = accesses().flatMap(({ driver: calls = [] }) => calls.map((call) => call.protocol));
    expect(new Set(nested)).toEqual(new Set([driver]));
    expect(dataOf('out')).toBeBytes(data);
    expect(dataOf('in')).toBeBytes(data);
    const judged = judgeRecording([readFileSync(file())]);
    expect({ findings: judged.findings, isWhole: judged.isWhole }).toEqual({ findings: [], isWhole: true });
  }

  it.each([
    ['qat', 'v2'],
    ['vendor-v1', 'v1'],
    ['hisi-v1', 'v1'],
  ])('of serve has what a client of %s asks in %s, and gives', async (driver, protocol) => {
    const path = await services().serve(`${driver},size=64K,seed=3`, 20_000, { ...asked, record: file() });
    const { data } = await migrated(path);
    checkWhole(protocol, protocol, data);
    expect(lines()[0]).toMatchObject({ command: 'serve', present: null, devices: [{ protocol }] });
    const replayed = await runCli(['replay', file(), '--device', `sim:${driver},size=64K,seed=3`]);
    expect(replayed).toMatchObject({ exit: OK, stderr: '' });
    expect(replayed.stdout).toContain('answered as recorded');
  });

  it.each([
    ['v1', 'qat', 'v2', { present: 'v1' }],
    ['v2', 'vendor-v1', 'v1', { present: 'v2' }],
    ['v2', 'hisi-v1', 'v1', { present: 'v2', segmentation: 'framed' }],
    ['v2', 'qat', 'v2', { present: 'v2', roundTrip: true }],
    ['v2', 'qat', 'v2', { present: 'v2' }],
  ] as const)('of proxy has a client of %s on %s, which speaks %s, with %j', async (protocol, driver, own, options) => {
    const server = await services().serve(`${driver},size=64K,seed=3`);
    const path = await services().proxy(server, { ...options, recording: { ...asked, record: file() } });
    const { data, protocol: spoken } = await migrated(path);
    expect(spoken).toBe(protocol);
    checkWhole(protocol, own, data);
    expect(lines()[0]).toMatchObject({ command: 'proxy', present: options.present, devices: [] });
    const replayed = await runCli(['replay', file(), '--device', `sim:${driver},size=64K,seed=3`]);
    expect(replayed).toMatchObject({ exit: OK, stderr: '' });
  });

  it.each([
    ['2M', 2 ** 20, true],
    ['1M', 2 ** 20, false],
    ['64K', 65_536, true],
  ] as const)(
    'of a proxy with --data-size %s has buffers of %i bytes, and where they were',
    async (dataSize, most, isKept) => {
      const size = '2500K';
      const dataSection = parseSize(dataSize, (why) => new Error(why));
      const server = await services().serve(`qat,size=${size},seed=3`);
      const recording = { ...asked, record: file() };
      const client = new TestClient(await services().proxy(server, { present: 'v1', dataSection, recording }));
      const pieces = client.save();
      client.close();
      await services().stop();
      expect(Math.max(...pieces.map(({ length }) => length))).toBe(most);
      expect(dataOf('out')).toBeBytes(Buffer.concat(pieces));
      const places = accesses().flatMap(({ call }) =>
        call.protocol === 'v1' && call.call === 'register' && call.register === 'data_offset' ? [call.value] : [],
      );
      expect(new Set(places).size).toBe(dataSection >= 2 * most ? 2 : 1);
      // recordings from before have no buffer-size, and sections of 1M at most
      if (!isKept) writeFileSync(file(), readFileSync(file(), 'utf8').replace(/"buffer-size":\d+,/, ''));
      expect(lines()[0]).toMatchObject({
        options: { 'data-size': dataSection, ...(isKept && { 'buffer-size': 2 ** 20 }) },
      });
      const replayed = await runCli(['replay', file(), '--device', `sim:qat,size=${size},seed=3`]);
      expect(replayed).toMatchObject({ exit: OK, stderr: '' });
      expect(replayed.stdout).toContain('answered as recorded');
    },
  );

  it('of a migration region that passes has sizes, and the data that go by messages', async () => {
    const server = await services().serve('vendor-v1,size=64K,seed=3');
    const options: Partial<ProxyOrder> = { present: 'v1', recording: { ...asked, record: file() } };
    const { data } = await migrated(await services().proxy(server, options));
    const moved = { out: 0, in: 0 };
    for (const access of accesses())
      if (access.moved !== undefined) moved[access.moved.direction] += access.moved.bytes;
    expect(moved).toEqual({ out: data.length, in: data.length });
    expect(dataOf('out')).toBeBytes(data);
    for (const { call, driver = [] } of accesses()) {
      if (call.protocol === 'v1') expect(driver).toMatchObject([call]);
    }
  });

  it('tells what was refused, and what the driver does once a client has gone', async () => {
    const path = await services().serve('qat,size=64K', 20_000, { record: file(), recordLimit: LIMIT });
    const client = new TestClient(path);
    const { device } = client;
    if (device.protocol !== 'v2') throw new Error('qat speaks v2');
    expect(() => device.device.setState(V2.ERROR)).toThrow('EINVAL');
    device.device.setState(V2.STOP);
    client.close();
    await services().stop();
    const states = accesses().filter(({ call }) => call.protocol === 'v2' && call.call === 'set-state');
    expect(states).toMatchObject([
      { call: { state: 'ERROR', errno: 'EINVAL' }, errno: 'EINVAL' },
      { call: { state: 'STOP', session: false }, result: 0, driver: [{ call: 'set-state', state: 'STOP' }] },
    ]);
    expect(lines().slice(-3)).toMatchObject([
      { kind: 'driver', call: { protocol: 'v2', call: 'reset' } },
      { kind: 'closed' },
      { kind: 'end' },
    ]);
  });

  it('ends at its limit, however long its client goes on', async () => {
    const path = await services().serve('qat,size=64K', 20_000, { record: file(), recordLimit: '64K' });
    const client = new TestClient(path);
    const body = vfio_user_region_access.encode({ offset: 0n, region: 0, count: 4 });
    for (let n = 0; n < 2000; n += 1) {
      client.server.link.request({ command: VFIO_USER_REGION_READ, name: 'VFIO_USER_REGION_READ', body });
    }
    client.close();
    await services().stop();
    expect(statSync(file()).size).toBeLessThanOrEqual(65_536);
    expect(statSync(file()).size).toBeGreaterThan(60_000);
    expect(lines().at(-1)).toMatchObject({ kind: 'end', why: 'limit' });
  });

  it('ends if its data come to the limit', async () => {
    const path = await services().serve('qat,size=64K', 20_000, {
      record: file(),
      recordData: true,
      recordLimit: '16K',
    });
    const { data } = await migrated(path);
    expect(data.length).toBeGreaterThan(16_384);
    expect(statSync(`${file()}.data`).size).toBeLessThanOrEqual(16_384);
    expect(lines().at(-1)).toMatchObject({ kind: 'end', why: 'limit' });
  });

  it('is printed, also while it is made, and drawn', async () => {
    const trace = join(directory, 'trace.txt');
    const path = await services().serve('qat,size=64K,seed=3', 20_000, {
      record: file(),
      trace,
      recordLimit: LIMIT,
    });
    await migrated(path);
    const printed = await runCli(['trace', file()]);
    expect(printed).toMatchObject({ exit: OK, stderr: '' });
    const ending = /\n\S+ +ended\n$/; // each file ends at its own moment
    expect(readFileSync(trace, 'utf8').replace(ending, '')).toBe(printed.stdout.replace(ending, ''));
    expect(printed.stdout).toMatch(/SET PRE_COPY -> data_fd = 0 <.*> driver: SET PRE_COPY -> data_fd$/m);
    expect(printed.stdout).toMatch(/VFIO_USER_REGION_READ of 64 KiB of BAR0 at 0 = 0 /);
    const drawn = await runCli(['timeline', file()]);
    expect(drawn).toMatchObject({ exit: OK, stderr: '' });
    expect(drawn.stdout).toContain('VMM, v2');
    expect((await runCli(['check', '--recording', file()])).exit).toEqual(OK);
  });

  it('of data that were not kept is not replayed into a device', async () => {
    const path = await services().serve('qat,size=64K,seed=3', 20_000, { record: file(), recordLimit: LIMIT });
    await migrated(path);
    const { exit, stderr } = await runCli(['replay', file(), '--device', 'sim:qat,size=64K,seed=3']);
    expect(exit).not.toEqual(OK);
    expect(stderr).toContain('--record-data');
  });

  it.each([
    [['--record-data'], /--record-data: give --record too/],
    [['--record', '/proc/nowhere/r'], /--record \/proc\/nowhere\/r/],
    [['--record', 'r', '--record-limit', '1K'], /--record-limit 1K: is less than 4096 bytes/],
  ])('%j is refused before anything is served', async (args, why) => {
    for (const command of [
      ['serve', '--device', 'qat'],
      ['proxy', '--connect', join(directory, 'nobody')],
    ]) {
      const socket = join(directory, 'socket');
      const { exit, stderr } = await runCli([...command, '--listen', socket, ...args]);
      expect(exit).not.toEqual(OK);
      expect(exit.code === 2 || exit.code === FAILED.code).toBe(true);
      expect(stderr).toMatch(why);
      expect(stderr).not.toContain('listening');
    }
  });
});
