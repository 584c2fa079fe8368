import { expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, type Imprint } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { expectDevice, startPair, type Pair } from '../../tools/vmm/pair.ts';
import { startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
const SIZE = 16 * 1024 * 1024;

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

const qat: DeviceOptions = { driver: 'qat', size: String(SIZE) };
const vendor: DeviceOptions = { driver: 'vendor-v1', size: String(SIZE) };
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

  /** The destination has all of the source's device, whose state is larger than its memory. */
  async function expectArrived(pair: Pair, mark: Imprint): Promise<void> {
    const { from, to } = await expectDevice(pair, mark);
    expect(from.bytesOut).toBeGreaterThan(SIZE);
    expect(to.bytesIn).toBe(from.bytesOut);
  }

  it.each(cases)('live, $title', { timeout: TIMEOUT }, async ({ device, from, to }) => {
    const pair = await startPair(bed(), [device], from.options, to.options);
    const mark = await imprint(pair.source);
    await migrateLive(pair.source, pair.destination, bed().path('migration'), { returnPath: true });
    await expectArrived(pair, mark);
  });

  it.each(inShort(cases, (_, n) => n % 5 === 2))(
    'through a file, $title',
    { timeout: TIMEOUT },
    async ({ device, from, to }) => {
      const source = await start('source', device, from);
      await source.waitForFirmware();
      const mark = await imprint(source);
      await migrateToFile(source, bed().path('state'));
      const destination = await start('destination', device, to, { incoming: true });
      await loadFromFile(destination, bed().path('state'));
      await expectArrived({ source, destination }, mark);
    },
  );
});
