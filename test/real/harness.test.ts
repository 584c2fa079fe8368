import { statSync } from 'node:fs';
import { expect, it } from 'vitest';
import {
  cancelMigration,
  CRAWL,
  listen,
  migrateLive,
  queryMigration,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import { QmpError } from '../../src/vmm/qmp.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { migrationHistory } from '../../tools/vmm/events.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import {
  expectArrived,
  PLAIN_BAR,
  PLAIN_SIZE,
  PLAIN_SLOT,
  startPlainSource,
  startPlainVm,
} from '../../tools/vmm/plain.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemu } from './requirements.ts';

describeWithQemu('test bed with plain QEMU', () => {
  const bed = useTestBed();
  const start = (name: string, incoming = false): Promise<Vm> => startPlainVm(bed(), name, { incoming });

  it('reads and writes device memory while the CPU runs, and reports errors of the monitor', async () => {
    const { source, pattern } = await startPlainSource(bed());
    const bar = await source.bar(PLAIN_SLOT, PLAIN_BAR);
    expect(bar.size).toBe(PLAIN_SIZE);
    expect(await source.memory.readU32(bar.address)).toBe(pattern.readUInt32LE(0));
    await source.memory.writeU32(bar.address + 4, 0xdeadbeef);
    expect(await source.memory.readU32(bar.address + 4)).toBe(0xdeadbeef);
    expect(await source.status()).toBe('running');
    expect(await source.qmp.hmp('info pci')).toContain('BAR2');
    await expect(source.qmp.execute('no-such-command')).rejects.toBeInstanceOf(QmpError);
    await source.stop();
    await source.qmp.waitForEvent('STOP');
    expect(await source.status()).toBe('paused');
    expect(await source.quit()).toEqual({ code: 0, signal: null });
  });

  it('saves a VM into a file and loads it', async () => {
    const { source, ...mark } = await startPlainSource(bed());
    const file = bed().path('state');
    await migrateToFile(source, file);
    expect(statSync(file).size).toBeGreaterThan(mark.pattern.length);
    expect(await source.status()).toBe('postmigrate');
    const destination = await start('destination', true);
    expect(await destination.status()).toBe('inmigrate');
    await loadFromFile(destination, file);
    await expectArrived(destination, mark);
    expect(migrationHistory(source)).toEqual(['setup', 'active', 'completed']);
  });

  it('cancels, migrates live, and migrates on from the destination', async () => {
    const { source, ...mark } = await startPlainSource(bed());
    const first = await start('first', true);
    await startMigration(source, await listen(first, bed().path('m1')), { parameters: CRAWL });
    await waitForMigration(source, 'active');
    await cancelMigration(source);
    expect(await source.status()).toBe('running');
    await source.waitForTicks();
    const exit = await first.waitForExit();
    expect(exit.code).toBe(1);

    const second = await start('second', true);
    const info = await migrateLive(source, second, bed().path('m2'), { returnPath: true });
    expect(info.status).toBe('completed');
    await expectArrived(second, mark);
    await source.quit();

    const third = await start('third', true);
    await migrateLive(second, third, bed().path('m3'));
    await expectArrived(third, mark);
    expect(await queryMigration(second)).toMatchObject({ status: 'completed' });
  });

  it('fails at both ends where the destination cannot load, and the source goes on', async () => {
    const { source, ...mark } = await startPlainSource(bed());
    // Without the device, whose state comes last: only the return path tells the source.
    const destination = await bed().startVm('destination', { incoming: true });
    await startMigration(source, await listen(destination, bed().path('m')), { returnPath: true });
    await expect(waitForMigration(source, 'completed')).rejects.toThrow(/migration of VM source failed, not completed/);
    expect(await destination.waitForExit()).toEqual({ code: 1, signal: null });
    expect(destination.child.stderr).toContain('load of migration failed');
    await expectArrived(source, mark);
  });

  it('quotes QEMU where a VM does not start', async () => {
    await expect(bed().startVm('broken', { args: ['-device', 'no-such-device'] })).rejects.toThrow(
      /VM broken did not start: .*no-such-device/,
    );
  });

  it('finds and kills processes that outlive a VM', async () => {
    // A stand-in for a supervisor that does not notice the end of its VMM.
    bed().spawn(['setsid', 'sleep', '300']);
    const vm = await start('vm');
    await vm.quit();
    expect(await bed().cleanUp(2000)).toEqual([expect.stringMatching(/sleep 300$/)]);
    expect(bed().processes()).toEqual([]);
  });
});
