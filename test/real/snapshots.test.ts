import { expect, it } from 'vitest';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf, type QemuVersion } from '../../tools/vmm/binaries.ts';
import { diskArgs, makeDisk } from '../../tools/vmm/disk.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
const SIZE = 16 * 1024 * 1024;

describeWithQemus(['7.2', '10.0'], 'snapshots of a VM', () => {
  const bed = useTestBed();
  const disk = (): string => bed().path('disk');

  function start(name: string, driver: string, qemu: QemuVersion, more: ShimOptions = {}): Promise<Vm> {
    const device: DeviceOptions = { driver, size: String(SIZE) };
    const { args = [], ...others } = more;
    const options = { qemu, run: ['--present', protocolOf(qemu)], ...others };
    return startShimmedVm(bed(), name, [device], { ...options, args: [...diskArgs(disk(), 'qcow2'), ...args] });
  }

  const crossings: readonly [driver: string, maker: QemuVersion, loader: QemuVersion][] = [
    ['qat', '7.2', '7.2'],
    ['qat', '7.2', '10.0'],
    ['qat', '10.0', '7.2'],
    ['vendor-v1', '10.0', '10.0'],
  ];
  it.each(inShort(crossings, (_, n) => n % 2 === 1))(
    'with %s: savevm in QEMU %s, loaded by itself as it runs and by QEMU %s as it starts',
    { timeout: TIMEOUT },
    async (driver, maker, loader) => {
      await makeDisk(bed(), disk(), 'qcow2');
      const source = await start('source', driver, maker);
      await source.waitForFirmware();
      const mark = await imprint(source);
      expect(await source.qmp.hmp('savevm one')).toBe('');
      expect(await source.status()).toBe('running');
      const later = await imprint(source);
      expect(await mismatches(source, mark)).toContain(0);

      expect(await source.qmp.hmp('loadvm one')).toBe('');
      await source.waitForStatus('running');
      await source.waitForTicks();
      expect(await mismatches(source, mark)).toEqual([]);
      expect(await mismatches(source, later)).toContain(0);
      const saved = await quitAndReport(source);
      expect(saved.states).toContain('STOP_COPY');
      expect(saved.states).not.toContain('PRE_COPY');
      expect(saved.bytesOut).toBeGreaterThan(SIZE);
      expect(saved.bytesIn).toBe(saved.bytesOut);

      const other = await start('other', driver, loader, { args: ['-loadvm', 'one'] });
      await other.waitForStatus('running');
      await other.waitForTicks();
      expect(await mismatches(other, mark)).toEqual([]);
      const loaded = await quitAndReport(other);
      expect(loaded.sha256).toBe(saved.sha256);
      expect(loaded.bytesIn).toBe(saved.bytesOut);
    },
  );

  it.each<[QemuVersion, string, string]>([
    ['7.2', 'x-enable-migration=off', "Error: VFIO device doesn't support migration"],
    ['10.0', 'enable-migration=off', 'Error: 0000:90:00.0: Migration is disabled for VFIO device'],
    [
      '10.0',
      'enable-migration=auto',
      "Error: 0000:90:00.0: VFIO device doesn't support device and IOMMU dirty tracking",
    ],
  ])('QEMU %s refuses savevm with %s', { timeout: TIMEOUT }, async (qemu, property, message) => {
    await makeDisk(bed(), disk(), 'qcow2');
    const vm = await start('vm', 'qat', qemu, { vfioProperties: [property] });
    expect(await vm.qmp.hmp('savevm one')).toBe(`${message}\r\n`);
    await vm.waitForStatus('running');
  });

  it.each<QemuVersion>(['7.2', '10.0'])('QEMU %s refuses savevm with a disk in raw format', async (qemu) => {
    await makeDisk(bed(), disk(), 'raw');
    const vm = await startShimmedVm(bed(), 'vm', [{ driver: 'qat' }], { qemu, args: diskArgs(disk(), 'raw') });
    const message = "Error: Device 'disk' is writable but does not support snapshots\r\n";
    expect(await vm.qmp.hmp('savevm one')).toBe(message);
    expect(await vm.status()).toBe('running');
  });

  it.each<QemuVersion>(['7.2', '10.0'])(
    'a device that refuses the state ends QEMU %s as it starts from the snapshot',
    { timeout: TIMEOUT },
    async (qemu) => {
      await makeDisk(bed(), disk(), 'qcow2');
      const source = await start('source', 'qat', qemu, { paused: true });
      expect(await source.qmp.hmp('savevm one')).toBe('');
      expect((await quitAndReport(source)).states).toContain('PRE_COPY'); // a VM that has never run
      const incompatible = [{ driver: 'qat', size: String(SIZE), compat: 2 }];
      const args = [...diskArgs(disk(), 'qcow2'), '-loadvm', 'one'];
      await expect(startShimmedVm(bed(), 'other', incompatible, { qemu, args })).rejects.toThrow(
        /error while loading state section id \d+\(0000:00:04\.0\/vfio\)\n.*: Error -\d+ while loading VM state$/,
      );
    },
  );
});
