import { DMA_MEMORY_SIZE } from './dma-memory.ts';
import { BAR0_OFFSET } from '../run/window.ts';
import { BRIDGED, placesOf, type Plan, type PlannedDevice } from '../run/plan.ts';

/*
 * What a supervisor inherits from its keeper, and by which numbers: the listener, the journal, and then, if devices are emulated,
 * the files of each; or, for devices of the kernel, one file for all of them; and pairs of sockets for each device of either kind. Every
 * number follows from what is declared here.
 */

/** A file of shared memory. */
export interface SharedFile {
  readonly name: string;
  readonly size: number;
}

export const LISTENER_FD = 3;
export const JOURNAL_FD = LISTENER_FD + 1;
const DEVICES_FD = JOURNAL_FD + 1;

/** Pages for config space, of PCI Express at most, and for what is kept beside it. */
const CONFIG_FILE_SIZE = 2 * 4096;

/** The files of an emulated device, in the order in which they are handed over. */
const EMULATED = {
  /**
   * The one behind the device's own descriptor, which ends where BAR0 ends, and cannot grow. Before that it has what is read of config space: a copy, which
   * nobody else reads. So whoever has it, and whatever call it makes, reaches the guest's memory of its own device, or what it sees of the device
   * itself.
   */
  device: ({ name, bar }) => ({ name: `vfio-${name}`, size: BAR0_OFFSET + bar }),
  /** Config space as it is, and what is kept beside it. The target is never given this one. */
  config: ({ name }) => ({ name: `vfio-${name}-config`, size: CONFIG_FILE_SIZE }),
  section: ({ name, dataSection }) => ({ name: `vfio-${name}-data`, size: dataSection }),
  /** What its driver keeps besides. */
  kept: ({ name, kept }) => ({ name: `vfio-${name}-kept`, size: Math.max(4096, pages(kept)) }),
  group: ({ group }) => ({ name: `vfio-group-${group}`, size: 4096 }),
  /** The data section inside a round trip, and what bridges carry over a change of state. */
  inner: ({ name, dataSection }) => ({ name: `vfio-${name}-inner`, size: dataSection }),
  carry: ({ name, dataSection }) => ({ name: `vfio-${name}-carry`, size: dataSection }),
  carryOuter: ({ name, dataSection }) => ({ name: `vfio-${name}-carry-outer`, size: dataSection }),
  /** What a device that does DMA has written to. */
  dma: ({ name, spec }) => ({ name: `vfio-${name}-dma`, size: spec.dma > 0 ? DMA_MEMORY_SIZE : 0 }),
  /** The data section of a draft inside a round trip. */
  twin: ({ name, dataSection }) => ({ name: `vfio-${name}-twin`, size: dataSection }),
} as const satisfies Readonly<Record<string, (device: PlannedDevice) => SharedFile>>;

type EmulatedFile = keyof typeof EMULATED;
const EMULATED_FILES = Object.keys(EMULATED) as EmulatedFile[];

/** The descriptors of an emulated device's files. */
export type DeviceFiles = Readonly<Record<EmulatedFile, number>>;

/** Descriptors in the order in which files are handed over, by the files' names. */
export function deviceFiles(fds: readonly number[]): DeviceFiles {
  return Object.fromEntries(EMULATED_FILES.map((file, n) => [file, fds[n]])) as DeviceFiles;
}

/** Those of the n-th device, as a supervisor has them. */
export function inheritedFiles(n: number): DeviceFiles {
  const first = DEVICES_FD + n * EMULATED_FILES.length;
  return deviceFiles(EMULATED_FILES.map((_, at) => first + at));
}

/** The parts of one bridged device in the file that all share: its data section, the one inside a round trip, what bridges carry. */
const PARTS = ['section', 'inner', 'carry', 'carryOuter', 'twin'] as const;
export type Part = (typeof PARTS)[number];

/** Bytes from one part to the next: the largest data section. The file is sparse. */
export const PART_SPAN = 2 ** 30;

/** The file of the bridged devices. */
export const PARTS_FD = DEVICES_FD;

/** Where a part of the n-th bridged device begins in it. */
export function partOffset(device: number, part: Part): number {
  return (device * PARTS.length + PARTS.indexOf(part)) * PART_SPAN;
}

type Devices = Pick<Plan, 'devices'>;

/** The shared memory of a run, in the order in which it is handed over, from `JOURNAL_FD` on. */
export function sharedFiles({ devices }: Devices, journalSize: number): SharedFile[] {
  const bridged = [{ name: 'vfio-shim-sections', size: BRIDGED * PARTS.length * PART_SPAN }];
  const files = devices.length === 0 ? bridged : devices.flatMap(filesOf);
  return [{ name: 'vfio-shim-journal', size: journalSize }, ...files];
}

/** The files of one emulated device. */
export function filesOf(device: PlannedDevice): SharedFile[] {
  return EMULATED_FILES.map((file) => EMULATED[file](device));
}

/** How many pairs of sockets keep descriptors for successors: of each device its data fd, and of each emulated one its eventfds. */
export function fdStoreCount(plan: Devices): number {
  return placesOf(plan) + plan.devices.length;
}

/** The two ends of the n-th device's fd store, for its data fd: behind the shared files. */
export function fdStoreFds(plan: Devices, device: number): readonly [into: number, out: number] {
  const first = JOURNAL_FD + sharedFiles(plan, 0).length + 2 * device;
  return [first, first + 1];
}

/** Those of the n-th emulated device's fd shelf, for its eventfds. */
export function fdShelfFds(plan: Devices, device: number): readonly [into: number, out: number] {
  return fdStoreFds(plan, placesOf(plan) + device);
}

/** The descriptor behind all that the keeper hands to a supervisor. */
export function firstFreeFd(plan: Devices): number {
  return fdStoreFds(plan, fdStoreCount(plan))[0];
}

function pages(bytes: number): number {
  return Math.ceil(bytes / 4096) * 4096;
}
