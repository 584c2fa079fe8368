import assert from 'node:assert/strict';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import { BAR_SIZE, V1Mem, type V1Data } from './v1mem.ts';
import { underShim } from './vm.ts';

/** VMs on a driver of the kernel that speaks v1 only. */

export interface Side {
  readonly title: string;
  readonly options: (name: string) => VmOptions;
}

/** What a new VM takes whose driver has no log of DMA. */
export const native10: VmOptions = { qemu: '10.0', vfioProperties: ['x-device-dirty-page-tracking=off'] };
export const old: Side = { title: 'native 7.2', options: () => ({ qemu: '7.2' }) };
export const young: Side = {
  title: '10.0 under run',
  options: (name) => ({ ...native10, prefix: underShim(name, '--present', 'v2') }),
};

export interface Started {
  readonly vm: Vm;
  readonly device: V1Mem;
}

export async function start(
  bed: TestBed,
  name: string,
  side: Side,
  data: V1Data,
  options: VmOptions = {},
): Promise<Started> {
  const device = new V1Mem(data);
  const vm = await bed.startVm(name, { ...side.options(name), ...options, vfio: [device.sysfs] });
  return { vm, device };
}

/** The data of a migration is a record or two, each the BAR and 16 bytes, in buffers of a page at most. */
const BUFFERS = BAR_SIZE / 4096 + 1;

/**
 * Whether the device's data went through mapped memory. QEMU 7.2 maps the section once, by itself; the supervisor maps it for each
 * access, as it does not keep the VMM's device open.
 */
function assertMoved({ device }: Started, side: Side): void {
  const { maps, faults } = device.mapped();
  if (device.data === 'accessed') assert.deepEqual({ maps, faults }, { maps: 0, faults: 0 });
  else if (side === old) assert.deepEqual({ maps, touched: faults > 0 }, { maps: 1, touched: true });
  else assert.ok(maps >= BUFFERS && faults >= BUFFERS, `${maps} maps and ${faults} faults for ${BUFFERS} buffers`);
}

/** Both VMs have the device's memory after a live migration, and its data went as the driver gives it. */
export async function assertCrosses(bed: TestBed, from: Side, to: Side, data: V1Data): Promise<void> {
  const source = await start(bed, 'source', from, data);
  const destination = await start(bed, 'destination', to, data, { incoming: true });
  await source.vm.waitForFirmware();
  const mark = await imprint(source.vm);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await destination.vm.waitForStatus('running');
  assert.deepEqual(await mismatches(destination.vm, mark), []);
  await destination.vm.waitForTicks();
  assertMoved(source, from);
  assertMoved(destination, to);
}
