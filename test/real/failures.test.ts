import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vfioRecords } from '../../src/qemu-stream/qemu-file.ts';
import { CRAWL, listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { migrateToFile } from '../../tools/vmm/migration-file.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);

interface Path {
  readonly title: string;
  readonly driver: string;
  readonly options: ShimOptions;
}

/** Each VMM where the bridge is between it and its device. */
const bridged: readonly Path[] = [
  { title: 'QEMU 7.2 on a v2 driver', driver: 'qat', options: { qemu: '7.2' } },
  { title: 'QEMU 10.0 on a v1 driver', driver: 'vendor-v1', options: { qemu: '10.0' } },
];

describeWithQemus(['7.2', '10.0'], 'a migration that fails', () => {
  const bed = useTestBed();

  describe.each(inShort(bridged, (_, n) => n === 1))('$title', ({ driver, options }) => {
    const start = (name: string, device: DeviceOptions = {}, more: ShimOptions = {}): Promise<Vm> =>
      startShimmedVm(bed(), name, [{ driver, size: '16M', ...device }], { ...options, ...more });
    const awaitMigration = (name: string, device: DeviceOptions = {}): Promise<Vm> =>
      start(name, device, { incoming: true });

    async function startSource(device: DeviceOptions = {}): Promise<{ source: Vm; mark: Imprint }> {
      const source = await start('source', device);
      await source.waitForFirmware();
      return { source, mark: await imprint(source) };
    }

    /** The VM runs, its device has what it had, and it can be migrated. */
    async function expectToLive(source: Vm, mark: Imprint): Promise<void> {
      await source.waitForStatus('running');
      await source.waitForTicks();
      expect(await mismatches(source, mark)).toEqual([]);
      const again = await awaitMigration('again');
      await migrateLive(source, again, bed().path('again.migration'), { returnPath: true });
      await again.waitForStatus('running');
      expect(await mismatches(again, mark)).toEqual([]);
      expect((await quitAndReport(again)).sha256).toBe((await quitAndReport(source)).sha256);
    }

    it('destination killed in pre-copy: the source lives', { timeout: TIMEOUT }, async () => {
      const { source, mark } = await startSource();
      const destination = await awaitMigration('destination');
      await startMigration(source, await listen(destination, bed().path('migration')), { parameters: CRAWL });
      await waitForMigration(source, 'active');
      process.kill(destination.child.pid ?? 0, 'SIGKILL');
      await waitForMigration(source, 'failed');
      await expectToLive(source, mark);
    });

    it('source killed in pre-copy: the destination ends by itself', { timeout: TIMEOUT }, async () => {
      const { source } = await startSource();
      const destination = await awaitMigration('destination');
      await startMigration(source, await listen(destination, bed().path('migration')), { parameters: CRAWL });
      await waitForMigration(source, 'active');
      process.kill(source.child.pid ?? 0, 'SIGKILL');
      expect((await destination.waitForExit()).code).toBe(1);
    });

    it.each(['PRE_COPY', 'STOP_COPY'])(
      'device in ERROR on its way to %s: reset, the source lives',
      { timeout: TIMEOUT },
      async (state) => {
        const { source, mark } = await startSource({ fault: `${state}@1:EIO!` });
        const destination = await awaitMigration('destination');
        await startMigration(source, await listen(destination, bed().path('migration')));
        await waitForMigration(source, 'failed');
        await destination.waitForExit();
        await expectToLive(source, mark);
      },
    );

    it('incompatible destination: refused, the source lives', { timeout: TIMEOUT }, async () => {
      const { source, mark } = await startSource({ compat: 1 });
      const destination = await awaitMigration('destination', { compat: 2 });
      await startMigration(source, await listen(destination, bed().path('migration')), { returnPath: true });
      await waitForMigration(source, 'failed');
      expect(await destination.waitForExit()).toEqual({ code: 1, signal: null });
      await expectToLive(source, mark);
    });

    it('stream cut short: refused', { timeout: TIMEOUT }, async () => {
      const { source } = await startSource();
      const file = bed().path('state');
      await migrateToFile(source, file);
      const { offset, size } = lastData(file);
      truncateSync(file, offset + Math.floor(size / 2));
      await expectRefused(file);
    });

    it('stream with a wrong byte in what the driver checks: refused', { timeout: TIMEOUT }, async () => {
      const { source } = await startSource();
      const file = bed().path('state');
      await migrateToFile(source, file);
      corrupt(file, firstData(file).offset);
      await expectRefused(file);
    });

    async function expectRefused(file: string): Promise<void> {
      const destination = await awaitMigration('destination');
      await destination.qmp.execute('migrate-incoming', { uri: `exec:cat ${file}` });
      expect(await destination.waitForExit()).toEqual({ code: 1, signal: null });
    }
  });
});

interface DataRecord {
  readonly offset: number;
  readonly size: number;
}

/** Where the device's data lies in a saved VM: the bytes of each record that has any. */
function dataRecords(file: string): DataRecord[] {
  return vfioRecords(readFileSync(file)).flatMap((record) =>
    record.tag === 'DEV_DATA_STATE' && record.bytes.length > 0
      ? [{ offset: record.offset + 16, size: record.bytes.length }]
      : [],
  );
}

function firstData(file: string): DataRecord {
  const [first] = dataRecords(file);
  if (first === undefined) throw new Error(`${file} has no device data`);
  return first;
}

function lastData(file: string): DataRecord {
  const last = dataRecords(file).at(-1);
  if (last === undefined) throw new Error(`${file} has no device data`);
  return last;
}

function corrupt(file: string, offset: number): void {
  const bytes = readFileSync(file);
  bytes[offset] = (bytes[offset] ?? 0) ^ 0xff;
  writeFileSync(file, bytes);
}
