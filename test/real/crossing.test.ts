import { expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

const TIMEOUT = 90_000;

/** One end of a migration: which QEMU, and what its device is presented as. */
interface End {
  readonly title: string;
  readonly options: ShimOptions;
}

const v1Only: End = { title: '7.2 bridged', options: { qemu: '7.2', run: ['--present', 'v1'] } };
const v2Only: End = { title: '10.0 native', options: { qemu: '10.0', run: ['--present', 'v2'] } };
const v1Native: End = { ...v1Only, title: '7.2 native' };
const v2Bridged: End = { ...v2Only, title: '10.0 bridged' };
const framed: End = {
  title: '10.0 bridged, framed',
  options: { qemu: '10.0', run: ['--present', 'v2', '--segmentation', 'framed'] },
};
const both = (qemu: '7.2' | '10.0'): End => ({ title: `${qemu}, both protocols shown`, options: { qemu } });
const roundTrip = (qemu: '7.2' | '10.0'): End => ({
  title: `${qemu} with --round-trip`,
  options: { qemu, run: ['--round-trip'] },
});

const qat: DeviceOptions = { driver: 'qat', size: '16M' };
const vendor: DeviceOptions = { driver: 'vendor-v1', size: '16M' };
const strict: DeviceOptions = { ...vendor, strict: true };

const matrix: readonly (readonly [device: DeviceOptions, from: End, to: End])[] = [
  [qat, v1Only, v1Only],
  [qat, v2Only, v2Only],
  [qat, v1Only, v2Only],
  [qat, v2Only, v1Only],
  [qat, both('7.2'), both('10.0')],
  [qat, both('10.0'), both('7.2')],
  [qat, roundTrip('10.0'), roundTrip('10.0')],
  [qat, roundTrip('7.2'), v2Only],
  [vendor, v2Bridged, v2Bridged],
  [vendor, v1Native, v2Bridged],
  [vendor, v2Bridged, v1Native],
  [vendor, roundTrip('7.2'), roundTrip('7.2')],
  [strict, framed, framed],
];
const cases = matrix.map(([device, from, to]) => ({
  title: `${device.driver}${device.strict === true ? ', strict' : ''}: ${from.title} to ${to.title}`,
  device,
  from,
  to,
}));

describeWithQemus(['7.2', '10.0'], 'state between old and new VMMs', () => {
  const bed = useTestBed();
  const start = (name: string, device: DeviceOptions, end: End, more: ShimOptions = {}): Promise<Vm> =>
    startShimmedVm(bed(), name, [device], { ...end.options, ...more });

  /** Ends both VMs; the hashes cover all guest-visible memory of their devices. */
  async function compare(source: Vm, destination: Vm): Promise<void> {
    const [to, from] = [await quitAndReport(destination), await quitAndReport(source)];
    expect(to.sha256).toBe(from.sha256);
    expect(from.bytesOut).toBeGreaterThan(16 * 1024 * 1024);
    expect(to.bytesIn).toBe(from.bytesOut);
  }

  it.each(cases)('live, $title', { timeout: TIMEOUT }, async ({ device, from, to }) => {
    const [source, destination] = await Promise.all([
      start('source', device, from),
      start('destination', device, to, { incoming: true }),
    ]);
    await source.waitForFirmware();
    const mark = await imprint(source);
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await destination.waitForStatus('running');
    await destination.waitForTicks();
    expect(await mismatches(destination, mark)).toEqual([]);
    await compare(source, destination);
  });

  it.each(cases)('through a file, $title', { timeout: TIMEOUT }, async ({ device, from, to }) => {
    const source = await start('source', device, from);
    await source.waitForFirmware();
    const mark = await imprint(source);
    await migrateToFile(source, bed().path('state'));
    const destination = await start('destination', device, to, { incoming: true });
    await loadFromFile(destination, bed().path('state'));
    await destination.waitForStatus('running');
    expect(await mismatches(destination, mark)).toEqual([]);
    await compare(source, destination);
  });
});
