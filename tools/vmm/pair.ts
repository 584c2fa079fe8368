import assert from 'node:assert/strict';
import type { DeviceReport } from '../../src/interpose/serve/report.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { mismatches, type Imprint } from './imprint.ts';
import { quitAndReports, startShimmedVm, type DeviceOptions, type ShimOptions } from './shim.ts';
import type { TestBed } from './test-bed.ts';

/** The two ends of a migration. */
export interface Pair {
  readonly source: Vm;
  readonly destination: Vm;
}

/** Starts both ends at once, with devices of the same kinds, and waits until the source has booted. */
export async function startPair(
  bed: TestBed,
  devices: readonly DeviceOptions[],
  from: ShimOptions,
  to: ShimOptions = from,
): Promise<Pair> {
  const [source, destination] = await Promise.all([
    startShimmedVm(bed, 'source', devices, from),
    startShimmedVm(bed, 'destination', devices, { ...to, incoming: true }),
  ]);
  await source.waitForFirmware();
  return { source, destination };
}

/** What the devices of both ends went through, by device. */
interface Reports {
  readonly from: readonly DeviceReport[];
  readonly to: readonly DeviceReport[];
}

/** The destination runs, with what the guest wrote into each device at the source, and all the rest. Ends both. */
export async function expectDevices({ source, destination }: Pair, marks: readonly Imprint[]): Promise<Reports> {
  await destination.waitForStatus('running');
  await destination.waitForTicks();
  for (const [index, mark] of marks.entries()) {
    const wrong = await mismatches(destination, mark, VFIO_SLOT + index);
    assert.deepEqual(wrong, [], `VM ${destination.name}: device ${index} differs from what the guest wrote`);
  }
  const [to, from] = [await quitAndReports(destination), await quitAndReports(source)];
  const hashes = (reports: readonly DeviceReport[]): unknown => reports.map(({ sha256 }) => sha256);
  assert.deepEqual(hashes(to), hashes(from), `the devices of VM ${destination.name} differ from the source's`);
  return { from, to };
}

/** The same, of VMs with one device. */
export async function expectDevice(pair: Pair, mark: Imprint): Promise<{ from: DeviceReport; to: DeviceReport }> {
  const { from, to } = await expectDevices(pair, [mark]);
  const [[ours], [theirs]] = [from, to];
  if (ours === undefined || theirs === undefined) throw new Error('no device');
  return { from: ours, to: theirs };
}
