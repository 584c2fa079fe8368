import { freemem } from 'node:os';
import { describe, expect, it } from 'vitest';
import { listen, startMigration } from '../../src/vmm/migration.ts';
import { waitForMigrationEnd } from '../../tools/vmm/events.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { FULL } from '../support/runs.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const MS = patient(600_000);
const SIZE = 2 ** 32;

interface Way {
  readonly title: string;
  readonly from: ShimOptions;
  readonly to: ShimOptions;
}

const old: ShimOptions = { qemu: '7.2', run: ['--present', 'v1'] };
const current: ShimOptions = { qemu: '10.0', run: ['--present', 'v2'] };
const across: ShimOptions = { qemu: '10.0', run: ['--present', 'v2', '--round-trip'] };

/** Both ends have all of it in memory. */
const hasRoom = freemem() > 2.5 * SIZE;

/** The largest memory that a simulated device can have where Node maps 4 GiB at most; its state is larger. */
describe.skipIf(!FULL || !hasRoom)('a state above 4 GiB', () => {
  describeWithQemus(['7.2', '10.0'], 'of a device with 4 GiB of memory', () => {
    const bed = useTestBed();

    it.each<Way>([
      { title: 'QEMU 7.2 to 7.2', from: old, to: old },
      { title: 'QEMU 7.2 to 10.0', from: old, to: current },
      { title: 'QEMU 10.0, across v1', from: across, to: across },
    ])('migrates whole: $title', { timeout: MS }, async ({ from, to }) => {
      const device: DeviceOptions = { driver: 'qat', size: String(SIZE) };
      const [source, destination] = await Promise.all([
        startShimmedVm(bed(), 'source', [{ ...device, seed: 7 }], { ...from, patience: MS }),
        startShimmedVm(bed(), 'destination', [device], { ...to, incoming: true, patience: MS }),
      ]);
      await source.waitForFirmware();
      const mark = await imprint(source);
      await startMigration(source, await listen(destination, bed().path('migration')), { returnPath: true });
      // the monitor does not answer while QEMU moves the state of a stopped VM
      for (const vm of [source, destination]) await waitForMigrationEnd(vm, MS);
      await destination.waitForStatus('running', MS);
      expect(await mismatches(destination, mark)).toEqual([]);
      const [there, here] = [await quitAndReport(destination, MS), await quitAndReport(source, MS)];
      expect(there.sha256).toBe(here.sha256);
      expect(here.bytesOut).toBeGreaterThan(SIZE);
      expect(there.bytesIn).toBe(here.bytesOut);
    });
  });
});
