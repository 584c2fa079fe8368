import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TransferResult } from '../../src/cli/transfer-control.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { runCli } from '../support/cli-run.ts';
import { useShimRuns, type RunOptions, type ShimRun } from '../support/shim-run.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

/*
 * The commands are VFIO programs as any other: under run, which emulates the devices, they go the way to a kernel's
 * device, by group, container, ioctls, pread, mmap and the data fd.
 */

const EVERY = [
  'qat,size=200K',
  'hisi,size=200K',
  'pds,size=200K',
  'mtty,ports=2',
  'vendor-v1,size=200K,section=32K',
] as const;
const SPECS = inShort(EVERY, (_, n) => n === 0 || n >= 3);
const PRESENTED = ['v1', 'v2'] as const;

function deviceAt(n: number): string {
  return `vfio:/dev/vfio/${9000 + n}:0000:${(0x90 + n).toString(16)}:00.0`;
}

const ZERO = deviceAt(0);

describe('under run', () => {
  const start = useShimRuns();
  let directory = '';
  let file = '';
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-under-run-'));
  });
  beforeEach(() => {
    for (const name of readdirSync(directory)) rmSync(join(directory, name));
    file = join(directory, 'state');
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const files = (): string[] => readdirSync(directory).toSorted();
  /** The command, for a shell. */
  const shim = `'${process.execPath}' '${CLI}'`;

  async function run(command: readonly string[] | string, options: RunOptions): Promise<ShimRun> {
    const shell = typeof command === 'string' ? ['sh', '-ec', command] : [process.execPath, CLI, ...command];
    const started = start(shell, { json: true, ...options });
    started.end();
    await started.ended(100_000); // many commands, one after the other
    return started;
  }

  const results = ({ stdout }: ShimRun): TransferResult[] =>
    stdout
      .split('\n')
      .filter((line) => line.startsWith('{"command"'))
      .map((line) => JSON.parse(line) as TransferResult);

  /** Without the line that says where the sysfsdev directories are. */
  const said = ({ stderr }: ShimRun): string => stderr.replace(/^vfio-shim: sysfsdev directories are in .*\n/m, '');

  it(
    'every driver, saved through either protocol, is restored through either',
    { timeout: patient(120_000) },
    async () => {
      const stateOf = (spec: string, presented: string): string =>
        join(directory, `${spec.split(',')[0]}-${presented}`);
      const sources = await Promise.all(
        PRESENTED.map(async (presented) => {
          const commands = SPECS.map((spec, n) => `${shim} save ${deviceAt(n)} '${stateOf(spec, presented)}' --json`);
          const devices = SPECS.map((spec) => `${spec},seed=5`);
          return run(commands.join('\n'), { devices, options: ['--present', presented] });
        }),
      );
      for (const [n, source] of sources.entries()) {
        expect(source.exit, source.describe()).toEqual({ code: 0, signal: null });
        expect(results(source).map(({ protocol }) => protocol)).toEqual(SPECS.map(() => PRESENTED[n]));
        for (const { states } of source.reports()) {
          expect(states).toEqual(expect.arrayContaining(['STOP_COPY', 'STOP']));
          expect(states.at(-1)).toBe('RUNNING');
        }
      }
      const memory = sources.map((source) => source.reports().map(({ sha256 }) => sha256));
      expect(new Set(memory[0]).size).toBeGreaterThan(1);
      expect(memory[1]).toEqual(memory[0]);

      const destinations = await Promise.all(
        PRESENTED.map(async (presented) => {
          const pairs = PRESENTED.flatMap((from) => SPECS.map((spec) => ({ from, spec })));
          const commands = pairs.map(
            ({ from, spec }, n) => `${shim} restore ${deviceAt(n)} '${stateOf(spec, from)}' --json`,
          );
          const devices = pairs.map(({ spec }) => spec);
          return run(commands.join('\n'), { devices, options: ['--present', presented] });
        }),
      );
      for (const destination of destinations) {
        expect(destination.exit, destination.describe()).toEqual({ code: 0, signal: null });
        const reports = destination.reports();
        expect(reports.map(({ sha256 }) => sha256)).toEqual(memory.flat());
        for (const { states } of reports) {
          expect(states).toContain('RESUMING');
          expect(states.at(-1)).toBe('RUNNING');
        }
      }
    },
  );

  it('a strict v1 driver gets the transactions of the source', async () => {
    const spec = 'vendor-v1,size=200K,section=16K,strict=1';
    const script = `${shim} save ${deviceAt(0)} '${file}'; ${shim} restore ${deviceAt(1)} '${file}'`;
    const ended = await run(script, { devices: [`${spec},seed=5`, spec], options: ['--present', 'v1'] });
    expect(ended.exit, ended.describe()).toEqual({ code: 0, signal: null });
    const [source, destination] = ended.reports();
    expect(destination).toMatchObject({ sha256: source?.sha256, buffersIn: source?.buffersOut });
  });

  it('a simulated device takes the state of an emulated one', async () => {
    const source = await run(['save', ZERO, file], { devices: ['qat,size=200K,seed=5'] });
    const { stdout } = await runCli(['restore', 'sim:qat,size=200K', file, '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ guestSha256: source.reports()[0]?.sha256 });
  });

  it('the state of another device is refused, and the device is not touched', async () => {
    const restore = `${shim} restore ${deviceAt(1)} '${file}'`;
    const script = `${shim} save ${deviceAt(0)} '${file}'; ${restore} || true; echo refused; ${restore} --force`;
    const ended = await run(script, { devices: ['qat', 'hisi'], options: ['--present', 'v2'] });
    expect(ended.exit, ended.describe()).toEqual({ code: 1, signal: null });
    const told = 'vfio-shim: .+: the state is of another device: id is "8086:4941" there and "19e5:a256" here; .*';
    expect(said(ended)).toMatch(
      new RegExp(`^${told}\\[ERR_OTHER_DEVICE, EINVAL\\]\n${told}\n.*ERR_DEVICE, EINVAL\\]\n$`),
    );
    expect(ended.reports()[1]?.states).toEqual(['RUNNING', 'RESUMING', 'RUNNING']); // once, by force
  });

  describe.each(inShort(PRESENTED, (_, n) => n === 1))('with %s presented', (presented) => {
    const options = ['--present', presented];

    it.each(['read@2:EIO', 'STOP_COPY@1:EBUSY!'])('a source with fault=%s leaves no file', async (fault) => {
      const { exit, stderr, ...rest } = await run(['save', ZERO, file], {
        devices: [`qat,size=200K,fault=${fault}`],
        options,
      }).then((ended) => ({ exit: ended.exit, stderr: said(ended), report: ended.reports()[0] }));
      expect(exit, stderr).toEqual({ code: 1, signal: null });
      expect(stderr).toMatch(new RegExp(`\\[ERR_\\w+, ${fault.replace(/.*:|!/g, '')}\\]\n$`));
      expect(files()).toEqual([]);
      expect(rest.report?.states.at(-1)).toBe('RUNNING');
    });

    it.each(['RESUMING@1:EBUSY', 'write@1:ENOMEM!'])('a destination with fault=%s runs afterwards', async (fault) => {
      const script = `${shim} save ${deviceAt(0)} '${file}'; ${shim} restore ${deviceAt(1)} '${file}'`;
      const ended = await run(script, { devices: ['qat,size=200K', `qat,size=200K,fault=${fault}`], options });
      expect(ended.exit, ended.describe()).toEqual({ code: 1, signal: null });
      expect(said(ended)).toMatch(new RegExp(`\\[ERR_\\w+, ${fault.replace(/.*:|!/g, '')}\\]\n$`));
      expect(ended.reports()[1]?.states.at(-1)).toBe('RUNNING');
    });
  });

  describe('a signal', () => {
    /** Takes a minute or so. */
    const SLOW = 'qat,size=4M,short=64';

    async function interrupted(device: string, signal: NodeJS.Signals, until: string): Promise<ShimRun> {
      const started = start([process.execPath, CLI, 'save', ZERO, file, '-v'], { devices: [device] });
      await poll(
        () => (started.stderr.includes(until) ? true : undefined),
        10_000,
        () => started.describe(),
      );
      started.signal(signal);
      return started;
    }

    it('SIGINT ends save, the device runs, no file is left', async () => {
      const started = await interrupted(SLOW, 'SIGINT', ': STOP_COPY');
      expect(await started.ended()).toEqual({ code: null, signal: 'SIGINT' });
      expect(started.stderr).toMatch(/: RUNNING.*\n(.*\n)*vfio-shim: save: interrupted \[ERR_INTERRUPTED, EINTR\]\n/);
      expect(files()).toEqual([]);
    });

    it('a second one does not wait for a driver that hangs', async () => {
      const started = await interrupted('qat,block=4000000000', 'SIGINT', ': PRE_COPY');
      expect(files()).toEqual([expect.stringMatching(/\.tmp$/)]);
      await poll(
        () => {
          started.signal('SIGINT');
          return started.exit === undefined ? undefined : true;
        },
        10_000,
        () => started.describe(),
        200,
      );
      expect(await started.ended()).toEqual({ code: null, signal: 'SIGINT' });
      expect(files()).toEqual([]);
    });
  });

  it('a state that a dead user left behind is told by probe, and reset by save', async () => {
    const script = `
      stale() { # a save that is killed in the middle
        ${shim} save ${ZERO} '${file}.killed' -v 2> '${file}.log' &
        until grep -q ': STOP_COPY' '${file}.log'; do sleep 0.05; done
        kill -9 $!; wait $! || rm '${file}.log'
      }
      stale; ${shim} probe ${ZERO} --json
      stale; ${shim} save ${ZERO} '${file}' --json`;
    const ended = await run(script, { devices: ['qat,size=1M,short=64'], options: ['--present', 'v2'] });
    expect(ended.exit, ended.describe()).toEqual({ code: 0, signal: null });
    const probed = ended.stdout.split('\n').find((line) => line.includes('"stale":')) ?? '{}';
    expect(JSON.parse(probed)).toMatchObject({ state: 'STOP_COPY', stale: true });
    expect(said(ended)).toMatch(
      /^vfio-shim: vfio:\/dev\/vfio\/9000:0000:90:00.0 was left in STOP_COPY by an earlier user: reset$/m,
    );
    const [save] = results(ended);
    expect(save?.states.slice(0, 3)).toEqual(['reset', 'RUNNING', 'PRE_COPY']);
    expect(files().filter((name) => !name.endsWith('.tmp'))).toEqual(['state']);
  });

  it.each([
    ['v1', { protocol: 'v1', migrationFlags: 0, flags: [], dataSize: null }],
    ['v2', { protocol: 'v2', migrationFlags: 7, flags: ['STOP_COPY', 'P2P', 'PRE_COPY'], dataSize: 65_568 }],
  ] as const)('probe sees a device that is presented in %s', async (presented, facts) => {
    const ended = await run(['probe', ZERO, '--json'], { devices: ['qat'], options: ['--present', presented] });
    const found = JSON.parse(ended.stdout.split('\n')[0] ?? '') as { regions: { index: number; type: string }[] };
    expect(found).toMatchObject({
      ...facts,
      device: ZERO,
      name: '0000:90:00.0',
      id: '8086:4941',
      driver: null,
      state: 'RUNNING',
      stale: false,
      irqs: 5,
      dmaLogging: 'no',
    });
    const regions = found.regions.map(({ index, type }) => [index, type]);
    expect(regions).toEqual([[0, null], [2, null], [7, null], ...(presented === 'v1' ? [[9, 'migration']] : [])]);
    expect(ended.reports()[0]?.states).toEqual(['RUNNING']);
  });

  it('a device that is not in the group is refused', async () => {
    writeFileSync(file, '');
    const ended = await run(['probe', 'vfio:/dev/vfio/9000:0000:91:00.0'], { devices: ['qat'] });
    expect(ended.exit?.code).toBe(1);
    expect(said(ended)).toBe('vfio-shim: /dev/vfio/9000: has no device 0000:91:00.0 [ERR_DEVICE, ENODEV]\n');
  });
});
