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
import { vfioStates } from '../../tools/vmm/events.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

const TIMEOUT = 120_000;
const SIZE = 16 * 1024 * 1024;

/** As often QEMU has looked whether it may stop the VM where that is taken for not yet. */
const LOOKS = 50;

/** QEMU's default. In a downtime of 300 ms it allows 38 MiB, so nothing but QEMU's estimate holds the VM back. */
const OWN_BANDWIDTH = 128 * 1024 * 1024;

/**
 * So slow that the half mebibyte of the guest's memory takes some of the 100 ms in which QEMU measures. If all of it is sent
 * in the first of them, QEMU 10.0 knows no bandwidth yet, asks no device for what it has, and stops the VM at once.
 */
const FIRST_BANDWIDTH = 1024 * 1024;

describeWithQemus(['10.0'], 'QEMU 10.0 whose guest is idle, with QEMU’s own limits', () => {
  const bed = useTestBed();
  const device: DeviceOptions = { driver: 'qat', size: String(SIZE) };
  const native: ShimOptions = { qemu: '10.0', run: ['--present', 'v2'] };

  async function begin(): Promise<{ source: Vm; destination: Vm }> {
    const [source, destination] = await Promise.all([
      startShimmedVm(bed(), 'source', [device], native),
      startShimmedVm(bed(), 'destination', [device], { ...native, incoming: true }),
    ]);
    await source.waitForFirmware();
    const uri = await listen(destination, bed().path('migration'));
    await startMigration(source, uri, { parameters: { 'max-bandwidth': FIRST_BANDWIDTH }, returnPath: true });
    return { source, destination };
  }

  /** Waits until QEMU has looked so often whether it may stop the VM: it looks for dirty memory anew each time. */
  async function waitForLooks(source: Vm, count: number): Promise<MigrationInfo> {
    let last: MigrationInfo = {};
    const ask = async (): Promise<true | undefined> => {
      last = await queryMigration(source);
      return (last.ram?.['dirty-sync-count'] ?? 0) >= count || last.status === 'completed' ? true : undefined;
    };
    await poll(ask, 40_000, () => `QEMU to look ${count} times whether it may stop the VM: ${JSON.stringify(last)}`);
    return last;
  }

  it.each([
    ['avail-switchover-bandwidth', 2 ** 30],
    ['downtime-limit', 2_000_000],
  ])('does not stop it for a device of 16 MiB, until %s says so', { timeout: TIMEOUT }, async (parameter, value) => {
    const { source, destination } = await begin();
    const sent = await waitForLooks(source, LOOKS);
    expect(sent).toMatchObject({ status: 'active', ram: { remaining: 0 } });
    await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': OWN_BANDWIDTH });
    const info = await waitForLooks(source, (sent.ram?.['dirty-sync-count'] ?? 0) + LOOKS);
    expect(info).toMatchObject({ status: 'active', ram: { remaining: 0 } });
    expect(await source.status()).toBe('running');
    const mark = await imprint(source);
    const later = await waitForLooks(source, (info.ram?.['dirty-sync-count'] ?? 0) + LOOKS);
    expect(later.status).toBe('active');
    expect(vfioStates(source)).toEqual(['pre-copy']);

    await source.qmp.execute('migrate-set-parameters', { [parameter]: value });
    await waitForMigration(source, 'completed');
    await destination.waitForStatus('running');
    await destination.waitForTicks();
    expect(await mismatches(destination, mark)).toEqual([]);
    const [to, from] = [await quitAndReport(destination), await quitAndReport(source)];
    expect(to.sha256).toBe(from.sha256);
    expect(from.bytesOut).toBeGreaterThan(SIZE);
  });
});
