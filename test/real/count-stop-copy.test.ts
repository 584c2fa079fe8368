import { expect, it } from 'vitest';
import { poll } from '../../src/vmm/deadline.ts';
import {
  listen,
  queryMigration,
  startMigration,
  waitForMigration,
  type MigrationInfo,
} from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemu } from './requirements.ts';

const TIMEOUT = 90_000;
const SIZE = 16 * 1024 * 1024;

/** A downtime in which no machine moves SIZE bytes: QEMU may stop the VM only where it takes the rest for far less. */
const PARAMETERS = { 'max-bandwidth': 2 ** 30, 'downtime-limit': 1 };

/** As often QEMU has looked whether it may stop the VM where that is taken for not yet. */
const LOOKS = 50;

describeWithQemu('what QEMU 7.2 knows of a v2 device before it stops the VM', () => {
  const bed = useTestBed();

  async function start(driver: string, run: readonly string[]): Promise<{ source: Vm; destination: Vm }> {
    const device: DeviceOptions = { driver, size: String(SIZE) };
    const [source, destination] = await Promise.all([
      startShimmedVm(bed(), 'source', [device], { run }),
      startShimmedVm(bed(), 'destination', [device], { run, incoming: true }),
    ]);
    await source.waitForFirmware();
    return { source, destination };
  }

  async function begin(source: Vm, destination: Vm): Promise<void> {
    const uri = await listen(destination, bed().path('migration'));
    await startMigration(source, uri, { parameters: PARAMETERS, returnPath: true });
  }

  /** The destination has the source's device; what the guest wrote into it, and all the rest. */
  async function expectArrived(source: Vm, destination: Vm, mark: Imprint): Promise<void> {
    await destination.waitForStatus('running');
    await destination.waitForTicks();
    expect(await mismatches(destination, mark)).toEqual([]);
    const [to, from] = [await quitAndReport(destination), await quitAndReport(source)];
    expect(to.sha256).toBe(from.sha256);
    expect(from.bytesOut).toBeGreaterThan(SIZE);
  }

  /** Waits until QEMU has looked some times whether it may stop the VM: it looks for dirty memory anew each time. */
  async function waitForLooks(source: Vm, count: number): Promise<MigrationInfo> {
    let last: MigrationInfo = {};
    const looks = (): number => last.ram?.['dirty-sync-count'] ?? 0;
    const ask = async (): Promise<true | undefined> => {
      last = await queryMigration(source);
      return looks() >= count || last.status === 'completed' ? true : undefined;
    };
    await poll(ask, 40_000, () => `QEMU to look ${count} times whether it may stop the VM: ${JSON.stringify(last)}`);
    return last;
  }

  it('is nothing by default: it stops at once, for longer than the limit', { timeout: TIMEOUT }, async () => {
    const { source, destination } = await start('qat', []);
    const mark = await imprint(source);
    await begin(source, destination);
    const { downtime, ram } = await waitForMigration(source, 'completed');
    expect(ram?.['dirty-sync-count']).toBeLessThan(LOOKS);
    expect(downtime).toBeGreaterThan(PARAMETERS['downtime-limit']);
    await expectArrived(source, destination, mark);
  });

  it.each(['qat', 'pds'])(
    'is what stop-and-copy costs, with --count-stop-copy: %s is not stopped before the limit allows it',
    { timeout: TIMEOUT },
    async (driver) => {
      const { source, destination } = await start(driver, ['--count-stop-copy']);
      await begin(source, destination);
      const info = await waitForLooks(source, LOOKS);
      // of what the device has to send, query-migrate does not tell
      expect(info).toMatchObject({ status: 'active', ram: { remaining: 0 } });
      expect(await source.status()).toBe('running');
      await source.waitForTicks();
      const mark = await imprint(source);
      await waitForLooks(source, (info.ram?.['dirty-sync-count'] ?? 0) + LOOKS);
      expect(await queryMigration(source)).toMatchObject({ status: 'active' });

      // the bandwidth that QEMU measures is what it sends, next to nothing now: even 10 s were not enough
      await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 2_000_000 });
      await waitForMigration(source, 'completed');
      await expectArrived(source, destination, mark);
    },
  );

  it('is enough to give up: cancelled, the VM runs on', { timeout: TIMEOUT }, async () => {
    const { source, destination } = await start('qat', ['--count-stop-copy']);
    const mark = await imprint(source);
    await begin(source, destination);
    await waitForLooks(source, LOOKS);
    await source.qmp.execute('migrate_cancel');
    await waitForMigration(source, 'cancelled');
    expect((await destination.waitForExit()).code).toBe(1);
    expect(await source.status()).toBe('running');
    await source.waitForTicks();
    expect(await mismatches(source, mark)).toEqual([]);
    const { states } = await quitAndReport(source);
    expect(states).toEqual(['RUNNING', 'PRE_COPY', 'RUNNING', 'STOP']);
  });

  it('does not hold up a VM that its user stops meanwhile', { timeout: TIMEOUT }, async () => {
    const { source, destination } = await start('qat', ['--count-stop-copy']);
    const mark = await imprint(source);
    await begin(source, destination);
    await waitForLooks(source, LOOKS);
    await source.stop();
    await waitForMigration(source, 'completed');
    await destination.waitForStatus('paused');
    await destination.cont();
    await expectArrived(source, destination, mark);
  });
});
