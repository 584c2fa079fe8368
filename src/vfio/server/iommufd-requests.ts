import * as abi from '../../abi/iommufd.ts';
import type { Fields, Struct, Values } from '../../abi/struct.ts';
import type { ContainerArgument } from '../argument.ts';
import { allowIovas, copy, iovaRanges, map, mapFile, unmap } from './ioas-requests.ts';
import { allocateHwpt, getDirtyBitmap, hwInfo, setDirtyTracking } from './hwpt-requests.ts';
import { attachedTo, freeId, hwptsOf, objectOf, remove, type IommufdHost, type IommufdState } from './iommufd-state.ts';
import { compatRequest } from './iommufd-compat.ts';
import { option } from './iommufd-option.ts';
import { refuse } from './refuse.ts';

/** A request to a context, with its struct as far as the caller has it. */
export interface Ask<V> {
  readonly argument: ContainerArgument;
  readonly cmd: V;
  readonly context: IommufdState;
  readonly host: IommufdHost;
  /** Writes fields back, as far as the caller's struct goes. */
  readonly respond: (changed: Partial<V>) => void;
}

interface Command {
  readonly name: string;
  serve(argument: ContainerArgument, context: IommufdState, host: IommufdHost): void;
}

/** `min`: the bytes that a struct has at least. */
function command<F extends Fields>(
  name: string,
  struct: Struct<F>,
  min: number,
  execute: (ask: Ask<Values<F>>) => void,
): Command {
  return {
    name,
    serve(argument, context, host) {
      const bytes = readStruct(argument, name, struct.size, min);
      const [size = 0] = new Uint32Array(bytes.buffer, 0, 1);
      const cmd = struct.decode(bytes);
      const respond = (changed: Partial<Values<F>>): void => {
        const answer = struct.encode({ ...cmd, ...changed });
        argument.write(answer.subarray(0, Math.min(size, struct.size)));
      };
      execute({ argument, cmd, context, host, respond });
    },
  };
}

const COMMANDS: ReadonlyMap<number, Command> = new Map<number, Command>([
  [abi.IOMMU_DESTROY, command('IOMMU_DESTROY', abi.iommu_destroy, 8, destroy)],
  [abi.IOMMU_IOAS_ALLOC, command('IOMMU_IOAS_ALLOC', abi.iommu_ioas_alloc, 12, allocateIoas)],
  [abi.IOMMU_IOAS_ALLOW_IOVAS, command('IOMMU_IOAS_ALLOW_IOVAS', abi.iommu_ioas_allow_iovas, 24, allowIovas)],
  [abi.IOMMU_IOAS_COPY, command('IOMMU_IOAS_COPY', abi.iommu_ioas_copy, 40, copy)],
  [abi.IOMMU_IOAS_IOVA_RANGES, command('IOMMU_IOAS_IOVA_RANGES', abi.iommu_ioas_iova_ranges, 32, iovaRanges)],
  [abi.IOMMU_IOAS_MAP, command('IOMMU_IOAS_MAP', abi.iommu_ioas_map, 40, map)],
  [abi.IOMMU_IOAS_MAP_FILE, command('IOMMU_IOAS_MAP_FILE', abi.iommu_ioas_map_file, 40, mapFile)],
  [abi.IOMMU_IOAS_UNMAP, command('IOMMU_IOAS_UNMAP', abi.iommu_ioas_unmap, 24, unmap)],
  [abi.IOMMU_OPTION, command('IOMMU_OPTION', abi.iommu_option, 24, option)],
  [abi.IOMMU_VFIO_IOAS, command('IOMMU_VFIO_IOAS', abi.iommu_vfio_ioas, 12, vfioIoas)],
  [abi.IOMMU_HWPT_ALLOC, command('IOMMU_HWPT_ALLOC', abi.iommu_hwpt_alloc, 24, allocateHwpt)],
  [abi.IOMMU_GET_HW_INFO, command('IOMMU_GET_HW_INFO', abi.iommu_hw_info, 32, hwInfo)],
  [
    abi.IOMMU_HWPT_SET_DIRTY_TRACKING,
    command('IOMMU_HWPT_SET_DIRTY_TRACKING', abi.iommu_hwpt_set_dirty_tracking, 16, setDirtyTracking),
  ],
  [
    abi.IOMMU_HWPT_GET_DIRTY_BITMAP,
    command('IOMMU_HWPT_GET_DIRTY_BITMAP', abi.iommu_hwpt_get_dirty_bitmap, 48, getDirtyBitmap),
  ],
]);

/** Those that Linux 6.12 has too, for IOMMUs that do what the emulated one does not: nested tables, and faults. */
const UNSUPPORTED: ReadonlySet<number> = new Set([abi.IOMMU_HWPT_INVALIDATE, abi.IOMMU_FAULT_QUEUE_ALLOC]);

/** Requests to an emulated /dev/iommu, as drivers/iommu/iommufd of Linux 6.12 answers them, for an IOMMU that logs dirty pages. */
export function iommufdRequest(
  argument: ContainerArgument,
  number: number,
  context: IommufdState,
  host: IommufdHost,
): number {
  const asContainer = compatRequest(argument, number, context, host);
  if (asContainer !== undefined) return asContainer;
  if (UNSUPPORTED.has(number))
    throw refuse('EOPNOTSUPP', `iommufd: ioctl 0x${number.toString(16)} of the emulated IOMMU`);
  const found = COMMANDS.get(number);
  if (found === undefined || (number === abi.IOMMU_IOAS_MAP_FILE && !host.mapsFiles)) {
    throw refuse('ENOTTY', `iommufd: no ioctl 0x${number.toString(16)}`);
  }
  found.serve(argument, context, host);
  return 0;
}

/** The most bytes behind a struct in which zeros are looked for: callers of later kernels have some dozen. */
const MOST_BEHIND = 4096;

/** What a caller has of a struct, and zeros for the rest. What it has beyond must be zeros (copy_struct_from_user()). */
function readStruct(argument: ContainerArgument, name: string, size: number, min: number): Uint8Array {
  const [given = 0] = new Uint32Array(argument.read(4).buffer);
  if (given < min) throw refuse('EINVAL', `${name}: size ${given}`);
  const behind = Math.max(0, given - size);
  if (behind > MOST_BEHIND) throw refuse('E2BIG', `${name}: size ${given}`);
  const bytes = argument.read(Math.min(given, size) + behind);
  if (bytes.subarray(size).some((byte) => byte !== 0))
    throw refuse('E2BIG', `${name}: size ${given}, and no zeros behind ${size}`);
  const whole = new Uint8Array(size);
  whole.set(bytes.subarray(0, size));
  return whole;
}

function destroy({ cmd: { id }, context, host }: Ask<Values<typeof abi.iommu_destroy.fields>>): void {
  const object = context.objects.find((candidate) => candidate.id === id);
  if (object === undefined) throw refuse('ENOENT', `IOMMU_DESTROY: no object ${id}`);
  const isUsed =
    object.kind === 'device' ||
    (object.kind === 'ioas' ? hwptsOf(context, id).length > 0 : attachedTo(context, id).length > 0);
  if (isUsed) throw refuse('EBUSY', `IOMMU_DESTROY: ${object.kind} ${id} is in use`);
  remove(context, object, host.mappings);
}

function allocateIoas({ cmd, context, host, respond }: Ask<Values<typeof abi.iommu_ioas_alloc.fields>>): void {
  if (cmd.flags !== 0) throw refuse('EOPNOTSUPP', `IOMMU_IOAS_ALLOC: flags ${cmd.flags}`);
  host.checkRoom(1, 0);
  const id = freeId(context);
  respond({ out_ioas_id: id });
  context.objects.push({ kind: 'ioas', id, allowed: [], largePages: true });
}

function vfioIoas({ cmd, context, respond }: Ask<Values<typeof abi.iommu_vfio_ioas.fields>>): void {
  const { op, ioas_id } = cmd;
  if (cmd.reserved !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_VFIO_IOAS: reserved');
  switch (op) {
    case abi.IOMMU_VFIO_IOAS_GET:
      if (context.vfioIoas === 0) throw refuse('ENODEV', 'IOMMU_VFIO_IOAS: none is set');
      respond({ ioas_id: context.vfioIoas });
      return;
    case abi.IOMMU_VFIO_IOAS_SET:
      context.vfioIoas = objectOf(context, 'ioas', ioas_id).id;
      return;
    case abi.IOMMU_VFIO_IOAS_CLEAR:
      context.vfioIoas = 0;
      return;
    default:
      throw refuse('EOPNOTSUPP', `IOMMU_VFIO_IOAS: op ${op}`);
  }
}
