import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
} from '../../abi/vfio.ts';
import type { V1Device } from '../../v1/device.ts';
import type { DraftDevice } from '../../v1/drafts/device.ts';
import type { V2Device } from '../../v2/device.ts';
import type { Argument, PointingArgument } from '../argument.ts';
import type { FeatureLog } from './feature-log.ts';
import { refuse } from './refuse.ts';
import { deviceFeature, type OpenDataFd } from './feature-request.ts';
import { migrationRegionInfo, type MigrationRegion } from './migration-region.ts';

/** The migration region comes behind vfio-pci's own regions. */
export const MIGRATION_REGION_INDEX = VFIO_PCI_NUM_REGIONS;

/** A region as `struct vfio_region_info` shows it: `VFIO_REGION_INFO_FLAG_*`, bytes, and the offset by which it is accessed. */
export interface ShownRegion {
  readonly flags: number;
  readonly size: number;
  readonly offset: bigint;
}

/** The regions of a device: its own by index, and the offset of the migration region that it has if v1 or a draft is presented. */
export interface DeviceRegions {
  readonly own: readonly ShownRegion[];
  readonly migration: bigint;
}

/** A well-formed `VFIO_DEVICE_SET_IRQS`: `VFIO_IRQ_SET_*` flags, which of an index's interrupts, and what stands behind the struct. */
export interface IrqSet {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly data: Uint8Array;
}

/**
 * The eventfd that a request names by a number in the n-th place of its data, which is the taker's own from then on. Throws `EBADF` if there
 * is none, `EINVAL` if it is a descriptor of something else.
 */
export type TakeEventFd<E> = (fd: number, n: number) => E;

/** The interrupts of a device that are told by `E`. */
export interface Interrupts<E> {
  /** How many interrupts an index has: `VFIO_PCI_*_IRQ_INDEX`. */
  count(index: number): number;
  /** `VFIO_IRQ_INFO_*` of an index. */
  flags(index: number): number;
  set(request: IrqSet, take: TakeEventFd<E>): void;
}

/** What requests to a device may cause, and what they show of it. */
export interface DeviceHost<E = unknown> {
  /** The migration region, if one is presented. */
  readonly region: V1Device | DraftDevice | undefined;
  readonly v2: V2Device | undefined;
  /** What the device knows of its DMA, if it does any and tells of it by itself. */
  readonly dmaLog?: FeatureLog | undefined;
  /** The interrupts that it gives; without it there are none. */
  readonly interrupts?: Interrupts<E> | undefined;
  /** A user looks at the device, and must not meet a state that an earlier user left behind. */
  firstLook(): void;
  reset(): void;
}

/** What only who carries a request can do: give the user a descriptor, and take one of the user's. */
export interface FdCarrier<E = unknown> {
  readonly openDataFd: OpenDataFd;
  readonly takeEventFd: TakeEventFd<E>;
}

/** Requests to an emulated device, as vfio-pci of Linux 6.12 answers them, with a migration region added. */
export function deviceRequest<E>(
  argument: PointingArgument,
  command: number,
  host: DeviceHost<E>,
  regions: DeviceRegions,
  carrier: FdCarrier<E>,
): number {
  switch (command) {
    case VFIO_DEVICE_GET_INFO:
      return getInfo(argument, host);
    case VFIO_DEVICE_GET_REGION_INFO:
      return getRegionInfo(argument, host, regions);
    case VFIO_DEVICE_GET_IRQ_INFO:
      return getIrqInfo(argument, host);
    case VFIO_DEVICE_SET_IRQS:
      return setIrqs(argument, host, carrier.takeEventFd);
    case VFIO_DEVICE_RESET:
      host.reset();
      return 0;
    case VFIO_DEVICE_FEATURE:
      if (host.v2 === undefined) throw refuse('ENOTTY', 'VFIO_DEVICE_FEATURE: v2 is not presented');
      return deviceFeature(argument, host.v2, carrier.openDataFd, host.dmaLog);
    default:
      throw refuse('ENOTTY', `device: no ioctl 0x${command.toString(16)}`);
  }
}

function getInfo(argument: Argument, host: DeviceHost): number {
  const MIN = 16;
  const [argsz = 0] = new Uint32Array(argument.read(4).buffer);
  if (argsz < MIN) throw refuse('EINVAL', `VFIO_DEVICE_GET_INFO: argsz ${argsz}`);
  const bytes = vfio_device_info.encode({
    argsz,
    flags: VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
    num_regions: VFIO_PCI_NUM_REGIONS + (host.region === undefined ? 0 : 1),
    num_irqs: VFIO_PCI_NUM_IRQS,
  });
  argument.write(bytes.subarray(0, Math.min(argsz, bytes.length)));
  host.firstLook(); // last: who does not get the answer has not looked
  return 0;
}

function getRegionInfo(argument: Argument, host: DeviceHost, regions: DeviceRegions): number {
  const { argsz, index } = vfio_region_info.decode(argument.read(vfio_region_info.size));
  if (argsz < vfio_region_info.size) throw refuse('EINVAL', `VFIO_DEVICE_GET_REGION_INFO: argsz ${argsz}`);
  if (index === MIGRATION_REGION_INDEX && host.region !== undefined) {
    const { dataSection, mapped } = host.region;
    const generation = 'draft' in host.region ? host.region.draft : 'v1';
    const region: MigrationRegion = {
      generation,
      offset: regions.migration,
      dataSection,
      mappable: mapped !== undefined,
    };
    argument.write(migrationRegionInfo(argsz, index, region));
    return 0;
  }
  const region = regions.own[index];
  if (region === undefined) throw refuse('EINVAL', `VFIO_DEVICE_GET_REGION_INFO: no region ${index}`);
  const { flags, size, offset } = region;
  argument.write(vfio_region_info.encode({ argsz, flags, index, size: BigInt(size), offset }));
  return 0;
}

function getIrqInfo(argument: Argument, { interrupts }: DeviceHost): number {
  const { argsz, index } = vfio_irq_info.decode(argument.read(vfio_irq_info.size));
  const count = interrupts?.count(index) ?? 0;
  const isThere = index < VFIO_PCI_NUM_IRQS && (index !== VFIO_PCI_ERR_IRQ_INDEX || count > 0); // ERR is PCI Express's
  if (argsz < vfio_irq_info.size || !isThere) {
    throw refuse('EINVAL', `VFIO_DEVICE_GET_IRQ_INFO: argsz ${argsz}, index ${index}`);
  }
  argument.write(vfio_irq_info.encode({ argsz, flags: interrupts?.flags(index) ?? 0, index, count }));
  return 0;
}

/** How many bytes of data a request has for each interrupt. */
const WIDTHS: Readonly<Record<number, number>> = {
  [VFIO_IRQ_SET_DATA_NONE]: 0,
  [VFIO_IRQ_SET_DATA_BOOL]: 1,
  [VFIO_IRQ_SET_DATA_EVENTFD]: 4,
};
const IRQ_FLAGS = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;

/** As vfio_set_irqs_validate_and_prepare and vfio_pci_set_irqs_ioctl. */
function setIrqs<E>(argument: Argument, { interrupts }: DeviceHost<E>, take: TakeEventFd<E>): number {
  const { argsz, flags, index, start, count } = vfio_irq_set.decode(argument.read(vfio_irq_set.size));
  const width = WIDTHS[flags & VFIO_IRQ_SET_DATA_TYPE_MASK];
  const number = interrupts?.count(index) ?? 0;
  const isWithin = index < VFIO_PCI_NUM_IRQS && start < number && start + count <= number;
  if (width === undefined || (flags & ~IRQ_FLAGS) !== 0 || !isWithin) {
    throw refuse('EINVAL', `VFIO_DEVICE_SET_IRQS: index ${index}, flags 0x${flags.toString(16)}, ${start}+${count}`);
  }
  const size = vfio_irq_set.size + count * width;
  if (argsz < size) throw refuse('EINVAL', `VFIO_DEVICE_SET_IRQS: argsz ${argsz}`);
  const data = argument.read(size).subarray(vfio_irq_set.size);
  interrupts?.set({ flags, index, start, count, data }, take);
  return 0;
}
