import { LAST_IOVA } from './container.ts';
import type { DmaMappings } from './dma-mappings.ts';
import type { MemoryOwner } from './mapping.ts';
import { refuse } from './refuse.ts';
import type { WindowLog } from './window-log.ts';

/** An I/O address space. */
export interface Ioas {
  readonly kind: 'ioas';
  readonly id: number;
  /** Where an address may be chosen for whoever names none, in hexadecimal, as the state travels as JSON: anywhere, if there is none. */
  allowed: readonly (readonly [start: string, last: string])[];
  /** `IOMMU_OPTION_HUGE_PAGES`: without them no address may be within a page. */
  largePages: boolean;
}

/** The page table of an address space as the IOMMU has it: one that came with a device and goes with the last, or the user's own. */
export interface Hwpt {
  readonly kind: 'hwpt';
  readonly id: number;
  readonly ioas: number;
  readonly isAuto: boolean;
  /** It was made to log dirty pages, and does. */
  readonly canLog: boolean;
  logging: boolean;
}

/** A device that is bound, by its place in the run, and the page table that it is attached to: 0 for none. */
export interface BoundDevice {
  readonly kind: 'device';
  readonly id: number;
  readonly place: number;
  hwpt: number;
}

export type IommufdObject = Ioas | Hwpt | BoundDevice;

/** An open /dev/iommu. `inode` names it. */
export interface IommufdState {
  readonly inode: number;
  /** `IOMMU_OPTION_RLIMIT_MODE`: memory is accounted to a process, not to its user. */
  byProcess: boolean;
  /** `IOMMU_VFIO_IOAS`: 0 for none. */
  vfioIoas: number;
  objects: IommufdObject[];
}

/** Memory of a file, with its bytes, and whether the descriptor is one to write by. */
export interface MappedFile extends MemoryOwner {
  readonly file: number;
  readonly size: bigint;
  readonly writable: boolean;
}

/** Everything that a request may need besides the context. */
export interface IommufdHost {
  /** Bytes of a page of the host, a power of two. */
  readonly pageSize: bigint;
  readonly mappings: DmaMappings;
  /** `IOMMU_IOAS_MAP_FILE` is there, as of Linux 7.1. */
  readonly mapsFiles: boolean;
  /** Throws `ENOMEM` if no more can be kept: so many objects and allowed ranges. */
  checkRoom(objects: number, ranges: number): void;
  /** The process that makes the request. */
  mapper(): MemoryOwner;
  /** There is a device's BAR in a range of that process's addresses. */
  hasBar(address: bigint, length: bigint): boolean;
  /** It has CAP_SYS_RESOURCE. */
  mayAccount(): boolean;
  /** A file of that process, as a mapping has it. Throws `EBADF`, or `EINVAL` if it is no memory. */
  fileOf(fd: number): MappedFile;
  /** What each of these devices has written to, if it does DMA. */
  logs(places: readonly number[]): readonly WindowLog[];
}

/** Bytes to a number that no container has: inodes are below. */
const KEY_SHIFT = 48n;

/** By which the mappings of an address space are told from those of others, and of containers. */
export function keyOf({ inode }: IommufdState, ioas: number): bigint {
  return (BigInt(ioas) << KEY_SHIFT) | BigInt(inode);
}

/** The lowest number that no object has (drivers/iommu/iommufd/main.c: xa_alloc() from 1 on). */
export function freeId({ objects }: IommufdState): number {
  const used = new Set(objects.map(({ id }) => id));
  let id = 1;
  while (used.has(id)) id += 1;
  return id;
}

type Kind = IommufdObject['kind'];

/** The object of that number and kind. Throws `ENOENT`, as the kernel does for a wrong kind too. */
export function objectOf<K extends Kind>(
  { objects }: IommufdState,
  kind: K,
  id: number,
): Extract<IommufdObject, { kind: K }> {
  const found = objects.find((object) => object.id === id);
  if (found?.kind !== kind) throw refuse('ENOENT', `iommufd: no ${kind} ${id}`);
  return found as Extract<IommufdObject, { kind: K }>;
}

export function hwptsOf({ objects }: IommufdState, ioas: number): Hwpt[] {
  return objects.filter((object): object is Hwpt => object.kind === 'hwpt' && object.ioas === ioas);
}

export function attachedTo({ objects }: IommufdState, hwpt: number): BoundDevice[] {
  return objects.filter((object): object is BoundDevice => object.kind === 'device' && object.hwpt === hwpt);
}

/** The first address that an address space has not: what the IOMMU translates is less, once there is a page table. */
export function endOf(context: IommufdState, { id }: Ioas): bigint {
  return hwptsOf(context, id).length > 0 ? LAST_IOVA + 1n : 2n ** 64n;
}

/** What addresses, memory and lengths are multiples of. */
export function alignmentOf(context: IommufdState, { id, largePages }: Ioas, pageSize: bigint): bigint {
  return hwptsOf(context, id).length > 0 || !largePages ? pageSize : 1n;
}

/** Takes an object away, and a page table that came with its device. */
export function remove(context: IommufdState, object: IommufdObject, mappings: DmaMappings): void {
  context.objects = context.objects.filter(({ id }) => id !== object.id);
  if (object.kind === 'device') dropUnused(context, object.hwpt);
  if (object.kind !== 'ioas') return;
  if (context.vfioIoas === object.id) context.vfioIoas = 0;
  mappings.unmapAll(keyOf(context, object.id), 0n);
}

/** A page table that came with a device goes with the last. */
export function dropUnused(context: IommufdState, hwpt: number): void {
  if (attachedTo(context, hwpt).length > 0) return;
  context.objects = context.objects.filter((object) => object.id !== hwpt || object.kind !== 'hwpt' || !object.isAuto);
}
