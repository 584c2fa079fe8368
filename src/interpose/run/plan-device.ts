import { simMemorySizes } from '../../sim/create.ts';
import { kindOf, type SimSpec } from '../../sim/drivers.ts';
import { barSize } from '../../sim/pci.ts';
import { inLargestPages } from '../../v1/region.ts';
import type { PlannedDevice } from './plan.ts';

const FIRST_GROUP = 9000;
const FIRST_BUS = 0x90;

/** The major number of the devices' own nodes: the kernel gives out the first that is free. */
export const CDEV_MAJOR = 511;

/** Where, in the directory of the sysfsdev directories, those are that stand for /dev/vfio and what is below. */
export const listedPath = '.dev';

/** The name of a device's own node, in sysfs and /dev. */
export function cdevName(place: number): string {
  return `vfio${place}`;
}

export function cdevPath(place: number): string {
  return `/dev/vfio/devices/${cdevName(place)}`;
}

/**
 * The devices of a run, in the order given: groups 9000, 9001, ..., addresses 0000:90:00.0, 0000:91:00.0, ... Whoever plans them
 * knows the simulated drivers; the keeper, which may live for months beside a VM, gets by with what stands in the plan.
 */
export function planDevice(index: number, text: string, spec: SimSpec, dataSection: number): PlannedDevice {
  const bus = (FIRST_BUS + index).toString(16).padStart(2, '0');
  const { section, kept } = simMemorySizes(spec);
  return {
    text,
    spec,
    name: `0000:${bus}:00.0`,
    group: FIRST_GROUP + index,
    dataSection: kindOf(spec).protocol === 'v2' ? dataSection : inLargestPages(section),
    bar: barSize(spec),
    kept,
  };
}
