import { expect, it } from 'vitest';
import { listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { quitAndReport, startShimmedVm } from '../../tools/vmm/shim.ts';
import { AT_ONCE, HARDLY, waitForLooks } from '../../tools/vmm/switchover.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

/* What users of VFIO migration have met, with the VMMs that they had. */

const TIMEOUT = patient(120_000);

describeWithQemus(['7.2', '10.0'], 'as users have reported', () => {
  const bed = useTestBed();

  /**
   * QEMU 10 takes MIG_DATA_SIZE for all that is left: its defaults (128 MiB/s, 300 ms) allow 38 MiB of it, and the device has more.
   */
  it('QEMU 10.0 on a large v1 device: migrates at its default limits, twice', { timeout: TIMEOUT }, async () => {
    const device = { driver: 'vendor-v1', size: '64M', seed: 5 };
    const start = (name: string, incoming: boolean) =>
      startShimmedVm(bed(), name, [device], { qemu: '10.0', incoming });
    const first = await start('first', false);
    await first.waitForFirmware();
    const mark = await imprint(first);
    const [second, third] = [await start('second', true), await start('third', true)];
    for (const [source, destination, name] of [
      [first, second, 'first.migration'],
      [second, third, 'second.migration'],
    ] as const) {
      const uri = await listen(destination, bed().path(name));
      await source.qmp.execute('migrate', { uri });
      await waitForMigration(source, 'completed', 60_000);
      await destination.waitForStatus('running');
    }
    expect(await mismatches(third, mark)).toEqual([]);
    const [from, to] = [await quitAndReport(first), await quitAndReport(third)];
    expect(to.sha256).toBe(from.sha256);
    await second.quit();
  });

  /** The VMM resets its devices when the guest reboots; its migration does not know. As QEMU 10 natively: it fails, the VM runs on. */
  it(
    'QEMU 7.2 on a v2 device: a guest that reboots in pre-copy fails the migration',
    { timeout: TIMEOUT },
    async () => {
      // so that QEMU stays in pre-copy when all has been sent
      const run = ['--count-stop-copy'];
      const device = { driver: 'qat', size: '16M' };
      const source = await startShimmedVm(bed(), 'source', [device], { run });
      const destination = await startShimmedVm(bed(), 'destination', [device], { incoming: true });
      await source.waitForFirmware();
      const uri = await listen(destination, bed().path('migration'));
      await startMigration(source, uri, { parameters: HARDLY });
      await waitForLooks(source); // all of the memory has been sent, and what the device had to send
      await source.qmp.execute('system_reset');
      await waitForMigration(source, 'failed');
      expect(source.child.stderr).toContain('the saving session has ended: the device is in RUNNING');
      expect((await destination.waitForExit()).code).toBe(1);
      await source.waitForStatus('running');
      await source.waitForFirmware(); // it has rebooted

      const mark = await imprint(source);
      const again = await startShimmedVm(bed(), 'again', [device], { incoming: true });
      await migrateLive(source, again, bed().path('again.migration'), {
        parameters: AT_ONCE,
        returnPath: true,
      });
      await again.waitForStatus('running');
      expect(await mismatches(again, mark)).toEqual([]);
      expect((await quitAndReport(again)).sha256).toBe((await quitAndReport(source)).sha256);
    },
  );

  /** libvfio-user's v1 servers take no 0 to 2 and say 1 for pending_bytes: QEMU 10 read such a device byte by byte. */
  it(
    'QEMU 10.0 on a v1 driver as strict as libvfio-user: runs, and paused once that is known',
    { timeout: TIMEOUT },
    async () => {
      const device = { driver: 'vendor-v1', size: '16M', seed: 7, libvfio: true };
      const start = (name: string, incoming: boolean, run: readonly string[] = []) =>
        startShimmedVm(bed(), name, [device], { qemu: '10.0', incoming, run: ['-v', ...run] });
      const source = await start('source', false);
      await source.waitForFirmware();
      await source.stop();
      const mark = await imprint(source);

      // the refusal is clear, the VM stays where it is, and the driver's habit is known from now on
      const refuses = await start('refuses', true);
      await startMigration(source, await listen(refuses, bed().path('refused.migration')));
      await waitForMigration(source, 'failed');
      await refuses.waitForExit();
      expect(await source.status()).toBe('paused');
      await source.cont();
      await source.waitForTicks();
      await source.stop();

      const paused = await start('paused', true);
      await migrateLive(source, paused, bed().path('paused.migration'));
      await paused.waitForStatus('paused');
      await paused.cont(); // QEMU leaves RESUMING by it
      await paused.waitForTicks();
      expect(await mismatches(paused, mark)).toEqual([]);

      const running = await start('running', true);
      await migrateLive(paused, running, bed().path('running.migration'));
      await running.waitForStatus('running');
      expect(await mismatches(running, mark)).toEqual([]);
      const reports = [await quitAndReport(source), await quitAndReport(paused), await quitAndReport(running)];
      expect(new Set(reports.map(({ sha256 }) => sha256)).size).toBe(1);
      // 16 MiB in pieces of full size: some dozens of reads, not one a byte
      expect(reports[1]?.buffersOut).toBeLessThan(200);
      for (const { states } of reports) expect(states).not.toContain('ERROR');
    },
  );
});
