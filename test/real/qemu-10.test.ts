import { mkdirSync } from 'node:fs';
import { expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import { migrationProperties } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { expectArrived, startPlainSource, startPlainVm } from '../../tools/vmm/plain.ts';
import type { VmOptions } from '../../tools/vmm/test-bed.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(60_000);

describeWithQemus(['7.2', '10.0'], 'test bed with QEMU 10.0', () => {
  const bed = useTestBed();

  /** A booted VM, whose QEMU must be the process that was started. */
  async function expectBoots(options: VmOptions): Promise<Vm> {
    const vm = await startPlainVm(bed(), 'vm', { qemu: '10.0', ...options });
    expect(await vm.qmp.execute('query-version')).toMatchObject({ qemu: { major: 10, minor: 0 } });
    await vm.waitForFirmware();
    expect(vm.child.stderr).toBe('');
    const qemu = bed()
      .processes()
      .find(({ commandLine }) => commandLine.includes('-qmp'));
    expect(qemu?.pid).toBe(vm.child.pid);
    return vm;
  }

  it.each(['off', 'on'])('boots with its own firmware, sandbox %s', async (sandbox) => {
    const vm = await expectBoots({ sandbox });
    expect(await vm.quit()).toEqual({ code: 0, signal: null });
  });

  it('boots under run', async () => {
    requireCli();
    mkdirSync(bed().path('sysfs'));
    const run = ['run', '--device', 'qat', '--sysfs', bed().path('sysfs'), '--'];
    const vm = await expectBoots({ prefix: [process.execPath, CLI, ...run], sandbox: 'on' });
    expect(await vm.quit()).toEqual({ code: 0, signal: null });
  });

  it.each<QemuVersion>(['7.2', '10.0'])('knows how a VFIO device of QEMU %s is made to migrate', async (qemu) => {
    const vm = await startPlainVm(bed(), 'vm', { qemu, paused: true });
    const known = await vm.qmp.execute<{ name: string }[]>('device-list-properties', { typename: 'vfio-pci' });
    const wanted = migrationProperties(qemu).map((property) => property.split('=')[0]);
    // this one is for hardware (docs/kernel-devices.md)
    expect(known.map(({ name }) => name)).toEqual(
      expect.arrayContaining([...wanted, 'x-pre-copy-dirty-page-tracking']),
    );
  });

  const ROUTES: [QemuVersion, QemuVersion][] = [
    ['7.2', '10.0'],
    ['10.0', '7.2'],
    ['10.0', '10.0'],
  ];

  it.each(ROUTES)('migrates a running VM from QEMU %s to %s', { timeout: TIMEOUT }, async (from, to) => {
    const { source, ...mark } = await startPlainSource(bed(), { qemu: from });
    const destination = await startPlainVm(bed(), 'destination', { qemu: to, incoming: true });
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await expectArrived(destination, mark);
    expect(await source.status()).toBe('postmigrate');
  });

  it.each(ROUTES)('migrates from QEMU %s to %s through a file', { timeout: TIMEOUT }, async (from, to) => {
    const { source, ...mark } = await startPlainSource(bed(), { qemu: from });
    await migrateToFile(source, bed().path('state'));
    await source.quit();
    const destination = await startPlainVm(bed(), 'destination', { qemu: to, incoming: true });
    await loadFromFile(destination, bed().path('state'));
    await expectArrived(destination, mark);
  });
});
