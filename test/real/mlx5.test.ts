import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { describe, expect, it } from 'vitest';
import { listen, migrateLive, startMigration } from '../../src/vmm/migration.ts';
import { waitForMigrationEnd } from '../../tools/vmm/events.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { expectDevice, startPair } from '../../tools/vmm/pair.ts';
import { quitAndReport, serving, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { FULL } from '../support/runs.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

interface Way {
  readonly title: string;
  readonly from: ShimOptions;
  readonly to: ShimOptions;
}

const old: ShimOptions = { qemu: '7.2', run: ['--present', 'v1'] };
const current: ShimOptions = { qemu: '10.0', run: ['--present', 'v2'] };
const across: ShimOptions = { qemu: '10.0', run: ['--present', 'v2', '--round-trip'] };

/** A firmware that takes its time, two images ahead of the reader, some of the memory in pre-copy. */
const DRIVER = 'mlx5,chunk=256K,initial=1M,delay=5';

describeWithQemus(['7.2', '10.0'], 'mlx5, whose firmware saves while others read', () => {
  const bed = useTestBed();

  it.each<Way>([
    { title: 'QEMU 7.2 to 7.2', from: old, to: old },
    { title: 'QEMU 7.2, that holds pre-copy, to 10.0', from: { ...old, run: ['--hold-precopy', '64M'] }, to: current },
    { title: 'QEMU 10.0 to 10.0', from: current, to: current },
    { title: 'QEMU 10.0 to 10.0, across v1', from: across, to: across },
  ])('migrates live: $title', { timeout: patient(90_000) }, async ({ from, to }) => {
    const device: DeviceOptions = { driver: DRIVER, size: '4M', seed: 3 };
    const source = await startShimmedVm(bed(), 'source', [device], { ...from, machine: 'pc-i440fx-7.2' });
    const destination = await startShimmedVm(bed(), 'destination', [{ ...device, seed: 0 }], {
      ...to,
      machine: 'pc-i440fx-7.2',
      incoming: true,
    });
    await source.waitForFirmware();
    const mark = await imprint(source);
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    const { from: here, to: there } = await expectDevice({ source, destination }, mark);
    expect(there.bytesIn).toBe(here.bytesOut);
    expect(here.states).toContain('PRE_COPY');
    expect(here.bytesOut).toBeGreaterThan(2 ** 22);
  });
});

describeWithQemus(['newest'], 'mlx5 of Linux 7.1, which says when its initial bytes begin anew', () => {
  const bed = useTestBed();

  it.each(['kernel=6.12', 'kernel=7.1', 'kernel=7.1,reinit=3'])(
    'the newest QEMU realizes it and migrates it: %s',
    { timeout: patient(90_000) },
    async (kernel) => {
      const device: DeviceOptions = { driver: `${DRIVER},${kernel}`, size: '4M' };
      const pair = await startPair(bed(), [device], { qemu: 'newest', run: ['--present', 'v2'] });
      const mark = await imprint(pair.source);
      await migrateLive(pair.source, pair.destination, bed().path('migration'), { returnPath: true });
      const { from, to } = await expectDevice(pair, mark);
      expect(to.bytesIn).toBe(from.bytesOut);
    },
  );
});

const SIZE = 6 * 2 ** 30;
const MS = patient(600_000);
const hasRoom = freemem() > 2.3 * SIZE;

/** The most memory that the supervisor of a VM has had in it, in bytes (proc(5): VmHWM), what it shares included. */
function peak(vm: Vm, bed: TestBed): number {
  const [pid] = serving(bed, 'supervisor-main', vm);
  const kib = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}

describe.skipIf(!FULL || !hasRoom)('mlx5 with 6 GiB, in chunks', () => {
  describeWithQemus(['7.2', '10.0'], 'which is more than Node maps', () => {
    const bed = useTestBed();

    /** Migrates so much, and returns the supervisors' peaks of memory. */
    async function migrate(bytes: number, name: string, { from, to }: Way): Promise<number[]> {
      const device: DeviceOptions = { driver: 'mlx5,chunk=8M', size: String(bytes) };
      const [source, destination] = await Promise.all([
        startShimmedVm(bed(), `${name}-source`, [{ ...device, seed: 7 }], from),
        startShimmedVm(bed(), `${name}-destination`, [device], { ...to, incoming: true }),
      ]);
      await source.waitForFirmware();
      const mark = await imprint(source, undefined, bytes);
      await startMigration(source, await listen(destination, bed().path(`${name}-migration`)), { returnPath: true });
      // the monitor does not answer while QEMU moves the state of a stopped VM
      for (const vm of [source, destination]) await waitForMigrationEnd(vm, MS);
      await destination.waitForStatus('running', MS);
      expect(await mismatches(destination, mark)).toEqual([]);
      const peaks = [source, destination].map((vm) => peak(vm, bed()));
      const [there, here] = [await quitAndReport(destination, MS), await quitAndReport(source, MS)];
      expect(there.sha256).toBe(here.sha256);
      expect(here.bytesOut).toBeGreaterThan(bytes);
      expect(there.bytesIn).toBe(here.bytesOut);
      return peaks;
    }

    it.each<Way>([
      { title: 'QEMU 7.2 to 7.2', from: old, to: old },
      { title: 'QEMU 10.0 to 10.0, across v1', from: across, to: across },
    ])(
      'arrives whole, and the supervisors need no more memory than for 6 MiB: $title',
      { timeout: MS },
      async (way) => {
        const small = await migrate(6 * 2 ** 20, 'small', way);
        const large = await migrate(SIZE, 'large', way);
        const more = large.map((bytes, n) => bytes - (small[n] ?? 0));
        console.log(
          `${way.title}: source and destination need ${more.map((bytes) => Math.round(bytes / 2 ** 20)).join(' and ')} MiB more`,
        );
        expect(Math.max(...more)).toBeLessThan(64 * 2 ** 20);
      },
    );
  });
});
