import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { AccessLine } from '../../../src/recording/format.ts';
import { readRecording, type RecordingEntry } from '../../../src/recording/reader.ts';
import type { CheckReport } from '../../../src/interpose/process/judge-output.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { requireCli } from '../../../tools/vmm/cli.ts';
import { callText } from '../../../src/recording/text.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../../support/shim-run.ts';
import { BAR0_AT, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

describeWithCompiler('run --record', () => {
  const start = useShimRuns();
  let directory = '';
  let count = 0;
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'shim-recording-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  interface Recorded {
    readonly run: ShimRun;
    readonly user: VfioPuppet;
    readonly device: DevicePuppet;
    readonly file: string;
  }

  async function open(options: RunOptions, more: readonly string[] = []): Promise<Recorded> {
    const file = join(directory, `recording${(count += 1)}`);
    const run = start([compiled('puppet')], {
      ...options,
      options: [...(options.options ?? []), '--record', file, ...more],
    });
    const user = new VfioPuppet(new Puppet(run));
    const [device] = (await user.openDevices()).devices;
    if (device === undefined) throw new Error('no device');
    return { run, user, device, file };
  }

  const linesOf = (file: string): RecordingEntry[] => [...readRecording([readFileSync(file)])];
  const accessesOf = (lines: readonly RecordingEntry[]): AccessLine[] => lines.filter((line) => line.kind === 'access');

  /** All lines, once the run has ended. */
  async function ended({ run, file }: Recorded): Promise<RecordingEntry[]> {
    run.end();
    await run.ended();
    await poll(
      () => (run.processes().length === 0 ? true : undefined),
      20_000,
      () => `the keeper ends\n${run.describe()}`,
    );
    return linesOf(file);
  }

  it('has each access by name and value, with what the driver was asked for it', async () => {
    const recorded = await open({ devices: ['qat,size=64K,seed=3'], json: true }, ['--record-data']);
    const { device, user, run, file } = recorded;
    for (const state of [V1.PRE_COPY, V1.STOP_COPY]) await device.enter(state);
    const data = Buffer.concat(await device.save());
    await device.enter(V1.STOP);
    expect((await device.write(0, 4, 5)).errno).toBe('EINVAL');
    expect((await user.pread(device.fd, 3, device.region)).errno).toBe('EINVAL');
    const lines = await ended(recorded);
    expect(lines[0]).toMatchObject({
      kind: 'recording',
      command: 'run',
      present: 'auto',
      devices: [{ protocol: 'v2' }],
    });
    expect(lines.at(-1)).toMatchObject({ kind: 'end', why: 'ended' });
    expect(lines.filter(({ kind }) => kind === 'opened')).toMatchObject([{ device: '0000:90:00.0', protocol: 'v2' }]);

    const accesses = accessesOf(lines);
    const written = accesses.filter(
      ({ call }) =>
        call.call === 'register' &&
        call.protocol === 'v1' &&
        call.access === 'write' &&
        call.register === 'device_state',
    );
    expect(written.map(({ call, errno }) => [(call as { state?: string }).state, errno])).toEqual([
      ['PRE_COPY', undefined],
      ['STOP_COPY', undefined],
      ['STOP', undefined],
      ['(5)', 'EINVAL'],
    ]);
    const asked = written.map(({ driver = [] }) =>
      driver.flatMap((call) => (call.call === 'set-state' ? call.state : [])),
    );
    expect(asked).toEqual([['PRE_COPY'], ['STOP_COPY'], ['STOP'], []]);
    expect(accesses.at(-1)).toMatchObject({
      call: { protocol: 'vfio', call: 'pread64', offset: 0, bytes: 3 },
      errno: 'EINVAL',
    });

    const moved = accesses.flatMap((access) => access.moved ?? []);
    const [report] = run.reports();
    expect(moved.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(report?.bytesOut);
    expect(moved.length).toBe(report?.buffersOut);
    expect(accesses.filter(({ device: of }) => of !== undefined).length).toBe(report?.trappedCalls);
    const kept = readFileSync(`${file}.data`);
    expect(kept).toBeBytes(data);
    for (const { data: part } of accesses) {
      if (part === undefined) continue;
      const bytes = kept.subarray(part.at, (part.at ?? 0) + part.bytes);
      expect(part.sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
    }
  });

  it('has each access to config space and BAR2 with what was read or written there, and those over the end of BAR0', async () => {
    const recorded = await open({ devices: ['qat,size=64K'] });
    const { device, user } = recorded;
    const [CONFIG, BAR2] = [7n << 40n, 2n << 40n];
    await user.pwrite(device.fd, Uint8Array.of(6, 4), CONFIG + 4n);
    await user.pread(device.fd, 4, CONFIG);
    await user.pread(device.fd, 64, CONFIG);
    await user.pwrite(device.fd, Uint8Array.of(1, 0, 0, 0), BAR2 + 0xc00n);
    await user.pread(device.fd, 8, BAR2 + 0x800n);
    await user.pread(device.fd, 4, (3n << 40n) + 16n);
    await user.pread(device.fd, 4, BAR0_AT + 65536n);
    expect((await user.pwrite(device.fd, new Uint8Array(8), BAR0_AT + 65532n)).value).toBe(4n);
    const accesses = accessesOf(await ended(recorded)).filter(({ call }) => /^p(read|write)64$/.test(call.call));
    expect(accesses.map(({ call, errno }) => [call, errno])).toEqual([
      [{ protocol: 'vfio', call: 'pwrite64', region: 'config', offset: 4, bytes: 2, data: '0x0406' }, undefined],
      [{ protocol: 'vfio', call: 'pread64', region: 'config', offset: 0, bytes: 4, data: '0x49418086' }, undefined],
      [{ protocol: 'vfio', call: 'pread64', region: 'config', offset: 0, bytes: 64 }, undefined],
      [{ protocol: 'vfio', call: 'pwrite64', region: 'BAR2', offset: 0xc00, bytes: 4, data: '0x00000001' }, undefined],
      [
        { protocol: 'vfio', call: 'pread64', region: 'BAR2', offset: 0x800, bytes: 8, data: `0x${'0'.repeat(16)}` },
        undefined,
      ],
      [{ protocol: 'vfio', call: 'pread64', region: 'BAR3', offset: 16, bytes: 4 }, 'EINVAL'],
      [{ protocol: 'vfio', call: 'pread64', region: 'BAR0', offset: 65536, bytes: 4 }, 'EINVAL'],
      [{ protocol: 'vfio', call: 'pwrite64', region: 'BAR0', offset: 65532, bytes: 8 }, undefined],
    ]);
    expect(accesses.at(-1)).toMatchObject({ device: '0000:90:00.0', result: 4 });
    const texts = accesses.map(({ call }) => callText(call));
    expect(texts.slice(0, 2)).toEqual(['config+0x4 <- 0x0406', 'config+0x0 -> 0x49418086']);
    expect(texts.slice(2, 4)).toEqual(['pread64 of 64 B of config at 0', 'BAR2+0xc00 <- 0x00000001']);
  });

  it('--check judges the VMM while it runs, and says at the end what it has done wrong', async () => {
    const run = start([compiled('puppet')], { devices: ['qat,size=64K,seed=3'], options: ['--check'], json: true });
    const user = new VfioPuppet(new Puppet(run));
    const [device] = (await user.openDevices()).devices;
    if (device === undefined) throw new Error('no device');
    for (const state of [V1.RUNNING, V1.STOP_COPY]) {
      await device.state();
      await device.enter(state);
    }
    await device.save();
    expect((await user.pread(device.fd, 3, device.region)).errno).toBe('EINVAL');
    expect((await device.write(0, 4, 5)).errno).toBe('EINVAL');
    run.end();
    await run.ended();
    const reports = run.stdout.split('\n').filter((line) => line.startsWith('{'));
    const { check } = JSON.parse(reports.at(-1) ?? '') as CheckReport;
    expect(check.findings.map(({ id, device: name }) => [id, name])).toEqual([
      ['vmm-v1-width', '0000:90:00.0'],
      ['vmm-v1-state', '0000:90:00.0'],
    ]);
    expect([check.omitted, check.isWhole, check.error]).toEqual([0, true, undefined]);
    expect(reports).toHaveLength(2);
    for (const { id, line } of check.findings) expect(run.stderr).toContain(`line ${line}, 0000:90:00.0: ${id}: `);
    expect(run.stderr).toContain(`vfio-shim: check: ${check.accesses} accesses, 2 findings\n`);
  });

  it('has an access that waited for its device once, with how often it was tried', async () => {
    const recorded = await open({ devices: ['mlx5,size=1M,delay=500'], options: ['--present', 'v1'] });
    await recorded.device.enter(V1.STOP_COPY);
    await recorded.device.save();
    const lines = await ended(recorded);
    const waited = accessesOf(lines).filter(({ retries = 0 }) => retries > 0);
    expect(waited.length).toBeGreaterThan(0);
    for (const { us } of waited) expect(us).toBeGreaterThan(0);
  });

  it('goes on with a supervisor that takes over, and says so', async () => {
    const recorded = await open({});
    await recorded.device.enter(V1.PRE_COPY);
    await recorded.device.state(); // a call is served once the line of the one before is made
    const pid = await recorded.run.supervisor();
    killHard(pid);
    await recorded.device.enter(V1.STOP_COPY);
    const lines = await ended(recorded);
    const story = lines.flatMap((line) => {
      if (line.kind === 'takeover') return line.why;
      const isWrite =
        line.kind === 'access' &&
        line.call.call === 'register' &&
        line.call.protocol === 'v1' &&
        line.call.access === 'write';
      return isWrite ? ((line.call as { state?: string }).state ?? []) : [];
    });
    expect(story).toEqual(['PRE_COPY', 'SIGKILL', 'STOP_COPY']);
  });

  it('ends at its limit, and the VM goes on', async () => {
    const recorded = await open({}, ['--record-limit', '8K']);
    for (let n = 0; n < 100; n += 1) await recorded.device.state();
    const lines = await ended(recorded);
    expect(lines.at(-1)).toMatchObject({ kind: 'end', why: 'limit' });
    expect(readFileSync(recorded.file).length).toBeLessThanOrEqual(8192);
    expect(recorded.run.stderr).toMatch(/--record: 8192 bytes are the limit/);
  });

  it('makes a file of its own in a directory', async () => {
    const run = start(['true'], { options: ['--record', directory] });
    await run.ended();
    await poll(
      () => (run.processes().length === 0 ? true : undefined),
      20_000,
      () => `the keeper ends\n${run.describe()}`,
    );
    const name = readdirSync(directory).find((each) => each.startsWith('vfio-shim-')) ?? '';
    expect(linesOf(join(directory, name)).map(({ kind }) => kind)).toEqual(['recording', 'end']);
  });
});
