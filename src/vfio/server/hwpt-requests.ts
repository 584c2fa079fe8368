import * as abi from '../../abi/iommufd.ts';
import type { Values } from '../../abi/struct.ts';
import { LAST_IOVA } from './container.ts';
import { writeDirtyBitmap } from './dirty-bitmap.ts';
import type { Ask } from './iommufd-requests.ts';
import {
  attachedTo,
  dropUnused,
  freeId,
  hwptsOf,
  keyOf,
  objectOf,
  type BoundDevice,
  type Hwpt,
  type IommufdHost,
  type IommufdState,
} from './iommufd-state.ts';
import { refuse } from './refuse.ts';

/*
 * Page tables, and devices that are attached to them (drivers/iommu/iommufd/hw_pagetable.c and device.c of Linux 6.12). The emulated
 * IOMMU has one stage, and translates 48 bits, by pages of the host and above.
 */

const U64 = 2n ** 64n;

/** The address space gets a page table, or has one: what is mapped must lie within it. Throws `EADDRINUSE`. */
function checkFits(context: IommufdState, ioas: number, { mappings, pageSize }: IommufdHost): void {
  if (hwptsOf(context, ioas).length > 0) return;
  const key = keyOf(context, ioas);
  const { allowed } = objectOf(context, 'ioas', ioas);
  const isBeyond = allowed.some(([, last]) => BigInt(last) > LAST_IOVA) || mappings.endsBeyond(key, LAST_IOVA);
  if (isBeyond || !mappings.areWhole(key, pageSize)) {
    throw refuse('EADDRINUSE', `iommufd: ioas ${ioas} has what the IOMMU cannot translate`);
  }
}

function makeHwpt(context: IommufdState, ioas: number, how: Pick<Hwpt, 'isAuto' | 'canLog'>): Hwpt {
  return { kind: 'hwpt', id: freeId(context), ioas, ...how, logging: false };
}

/** `IOMMU_HWPT_ALLOC`: a page table of an address space, which the device can be attached to. */
export function allocateHwpt({ cmd, context, host, respond }: Ask<Values<typeof abi.iommu_hwpt_alloc.fields>>): void {
  const { flags, data_type, data_len, data_uptr, dev_id, pt_id } = cmd;
  if (cmd.reserved !== 0 || cmd.reserved2 !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_HWPT_ALLOC: reserved');
  if ((data_type === abi.IOMMU_HWPT_DATA_NONE) !== (data_len === 0)) {
    throw refuse('EINVAL', `IOMMU_HWPT_ALLOC: ${data_len} bytes of type ${data_type}`);
  }
  objectOf(context, 'device', dev_id);
  const table = context.objects.find(({ id }) => id === pt_id);
  if (table === undefined || table.kind === 'device') throw refuse('EINVAL', `IOMMU_HWPT_ALLOC: no table ${pt_id}`);
  const isNested = table.kind === 'hwpt' || data_type !== abi.IOMMU_HWPT_DATA_NONE || data_uptr !== 0n;
  if (isNested || (flags & ~abi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0) {
    throw refuse(
      'EOPNOTSUPP',
      `IOMMU_HWPT_ALLOC: flags ${flags}, data of type ${data_type}, on ${table.kind} ${pt_id}`,
    );
  }
  host.checkRoom(1, 0);
  checkFits(context, pt_id, host);
  const canLog = (flags & abi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
  const hwpt = makeHwpt(context, pt_id, { isAuto: false, canLog });
  respond({ out_hwpt_id: hwpt.id });
  context.objects.push(hwpt);
}

/** `IOMMU_GET_HW_INFO`: an IOMMU of no type, that logs dirty pages. */
export function hwInfo({ argument, cmd, context, respond }: Ask<Values<typeof abi.iommu_hw_info.fields>>): void {
  const isReserved = cmd.reserved0 !== 0 || cmd.reserved1 !== 0 || cmd.reserved2 !== 0;
  if (cmd.flags !== 0 || isReserved) throw refuse('EOPNOTSUPP', `IOMMU_GET_HW_INFO: flags ${cmd.flags}`);
  objectOf(context, 'device', cmd.dev_id);
  if (cmd.data_len > MOST_DATA) throw refuse('EFAULT', `IOMMU_GET_HW_INFO: data_len ${cmd.data_len}`);
  if (cmd.data_len > 0) argument.writeAt(cmd.data_uptr, new Uint8Array(cmd.data_len));
  respond({
    data_len: 0,
    out_data_type: abi.IOMMU_HW_INFO_TYPE_NONE,
    out_max_pasid_log2: 0,
    out_capabilities: abi.IOMMU_HW_CAP_DIRTY_TRACKING,
  });
}

/** The most bytes that are cleared for a caller: the largest data of a type has some dozen. */
const MOST_DATA = 65_536;

/** `IOMMU_HWPT_SET_DIRTY_TRACKING`. */
export function setDirtyTracking({
  cmd,
  context,
  host,
}: Ask<Values<typeof abi.iommu_hwpt_set_dirty_tracking.fields>>): void {
  if ((cmd.flags & ~abi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0 || cmd.reserved !== 0) {
    throw refuse('EOPNOTSUPP', `IOMMU_HWPT_SET_DIRTY_TRACKING: flags ${cmd.flags}`);
  }
  const hwpt = objectOf(context, 'hwpt', cmd.hwpt_id);
  if (!hwpt.canLog) throw refuse('EOPNOTSUPP', `IOMMU_HWPT_SET_DIRTY_TRACKING: hwpt ${hwpt.id} was not made to`);
  const enables = cmd.flags === abi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
  if (enables) for (const log of logsOf(context, hwpt, host)) log.clear();
  hwpt.logging = enables;
}

function logsOf(context: IommufdState, { id }: Hwpt, host: IommufdHost): ReturnType<IommufdHost['logs']> {
  return host.logs(attachedTo(context, id).map(({ place }) => place));
}

/** `IOMMU_HWPT_GET_DIRTY_BITMAP` (drivers/iommu/iommufd/io_pagetable.c: iopt_read_and_clear_dirty_data): sets bits, and clears none. */
export function getDirtyBitmap({
  argument,
  cmd,
  context,
  host,
}: Ask<Values<typeof abi.iommu_hwpt_get_dirty_bitmap.fields>>): void {
  const { flags, iova, length, page_size, data } = cmd;
  if ((flags & ~abi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0 || cmd.reserved !== 0) {
    throw refuse('EOPNOTSUPP', `IOMMU_HWPT_GET_DIRTY_BITMAP: flags ${flags}`);
  }
  const hwpt = objectOf(context, 'hwpt', cmd.hwpt_id);
  const text = `IOMMU_HWPT_GET_DIRTY_BITMAP: ${length} bytes at 0x${iova.toString(16)} by ${page_size}`;
  if (page_size === 0n || (page_size & (page_size - 1n)) !== 0n || length < page_size) throw refuse('EINVAL', text);
  if (iova + length > U64) throw refuse('EOVERFLOW', `${text} wrap`);
  const unit = page_size > host.pageSize ? page_size : host.pageSize;
  if ((iova | length) % unit !== 0n) throw refuse('EINVAL', `${text} are no whole pages`);
  if (!hwpt.canLog) throw refuse('EOPNOTSUPP', `${text}: hwpt ${hwpt.id} was not made to log`);
  if (!hwpt.logging) throw refuse('EINVAL', `${text}: hwpt ${hwpt.id} does not log`);
  // Linux refuses a range without a mapping too, but QEMU with TCG asks for BARs, which could not be mapped
  const key = keyOf(context, hwpt.ioas);
  if (host.mappings.within(key, iova, length).length > 0 && !host.mappings.covers(key, iova, length))
    throw refuse('EINVAL', `${text} are not all mapped`);
  const logs = logsOf(context, hwpt, host);
  writeDirtyBitmap(argument, { data, pageSize: page_size, adds: true }, { iova, length }, logs);
  if ((flags & abi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0) for (const log of logs) log.giveBack();
}

/**
 * `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: attaches a device to a page table, or to one that an address space has or gets for it. It leaves the one
 * that it was attached to. Returns the page table's number; `tell` says it to the caller, before anything has changed.
 */
export function attach(
  context: IommufdState,
  device: BoundDevice,
  table: number,
  host: IommufdHost,
  tell: (hwpt: number) => void,
): void {
  const found = context.objects.find(({ id }) => id === table);
  if (found === undefined) throw refuse('ENOENT', `VFIO_DEVICE_ATTACH_IOMMUFD_PT: no object ${table}`);
  if (found.kind === 'device') throw refuse('EINVAL', `VFIO_DEVICE_ATTACH_IOMMUFD_PT: object ${table} is a device`);
  const [own] = found.kind === 'hwpt' ? [found] : hwptsOf(context, found.id).filter(({ isAuto }) => isAuto);
  if (own === undefined) {
    host.checkRoom(1, 0);
    checkFits(context, table, host);
  }
  const hwpt = own ?? makeHwpt(context, table, { isAuto: true, canLog: false });
  tell(hwpt.id);
  if (own === undefined) context.objects.push(hwpt);
  const before = device.hwpt;
  device.hwpt = hwpt.id;
  if (before !== hwpt.id) for (const log of host.logs([device.place])) log.clear(); // it was another's
  if (before !== 0) dropUnused(context, before);
}

/** `VFIO_DEVICE_DETACH_IOMMUFD_PT`. */
export function detach(context: IommufdState, device: BoundDevice): void {
  const before = device.hwpt;
  device.hwpt = 0;
  if (before !== 0) dropUnused(context, before);
}
