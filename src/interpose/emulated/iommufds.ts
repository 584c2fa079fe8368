import { CAP_SYS_RESOURCE } from '../../abi/prctl.ts';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../../abi/vfio.ts';
import { hasCapability } from '../../sys/credentials.ts';
import { hasLock, inodeOfOwn } from '../../sys/file.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import { createSharedMemory } from '../../sys/memory.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import type { DmaMappings } from '../../vfio/server/dma-mappings.ts';
import type { MemoryOwner } from '../../vfio/server/mapping.ts';
import { attach, detach } from '../../vfio/server/hwpt-requests.ts';
import { becomeContainer, compatIoas } from '../../vfio/server/iommufd-compat.ts';
import { iommufdRequest } from '../../vfio/server/iommufd-requests.ts';
import {
  freeId,
  keyOf,
  objectOf,
  remove,
  type BoundDevice,
  type IommufdHost,
  type IommufdState,
} from '../../vfio/server/iommufd-state.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Turn } from '../memory/turn.ts';
import { ANSWERED, type Call } from '../trap/call.ts';
import { CallArgument } from '../trap/call-argument.ts';
import type { DmaReach } from './emulated-dma.ts';
import { fileOf, hasFile } from './mapped-file.ts';
import { isOpen, openDeviceFile, shareLock } from './node-files.ts';
import type { NodeDevice, SendFd } from './node-device.ts';

/** What is kept of all contexts together: of more than these, the state would not fit its arena. */
const MAX_CONTEXTS = 32;
const MAX_OBJECTS = 128;
const MAX_RANGES = 128;

/** The requests of devices that are opened by nodes of their own. */
export const CDEV_REQUESTS: ReadonlySet<number> = new Set([
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
]);

/** What contexts and devices need of the other nodes. */
export interface IommufdParts {
  readonly devices: readonly NodeDevice[];
  readonly mappings: DmaMappings;
  readonly mapsFiles: boolean;
  readonly send: SendFd;
  /** Puts what changed into the arena. */
  readonly save: () => void;
  readonly mapper: (tid: number) => MemoryOwner;
  /** The device's group is in a container: then the device's descriptors are the group's. */
  hasContainer(place: number): boolean;
  /** A group is in the context, which is its container. */
  readonly isContainer: (inode: number) => boolean;
  /** A group that nobody has any more is in none. */
  detachClosed(place: number): void;
}

interface Bound {
  readonly context: IommufdState;
  readonly device: BoundDevice;
}

/** The emulated /dev/iommu, and the devices that are opened by nodes of their own (drivers/vfio/device_cdev.c of Linux 6.12). */
export class Iommufds {
  readonly #contexts: IommufdState[];
  readonly #parts: IommufdParts;
  /** The inodes of the devices' files, of which BAR0 is mapped. */
  readonly #bars: ReadonlySet<number>;

  constructor(contexts: IommufdState[], parts: IommufdParts) {
    this.#contexts = contexts;
    this.#parts = parts;
    this.#bars = new Set(parts.devices.map(({ driver }) => inodeOfOwn(driver.files.device)));
  }

  context(inode: number): IommufdState | undefined {
    return this.#contexts.find((candidate) => candidate.inode === inode);
  }

  /** Opens /dev/iommu. Of too many contexts, the oldest without a device is forgotten. */
  open(turn: Turn, closeOnExec: boolean): number {
    const { devices, send, save, mappings, isContainer } = this.#parts;
    this.unbindClosed();
    if (this.#contexts.length >= MAX_CONTEXTS) {
      for (const place of devices.keys()) this.#parts.detachClosed(place); // a group that nobody has keeps no context
      const unused = this.#contexts.findIndex(
        ({ inode, objects }) => !isContainer(inode) && !objects.some(({ kind }) => kind === 'device'),
      );
      if (unused < 0) throw refuse('EMFILE', `open /dev/iommu: ${MAX_CONTEXTS} are in use`);
      const [gone] = this.#contexts.splice(unused, 1);
      for (const object of gone?.objects ?? []) if (gone !== undefined) remove(gone, object, mappings);
    }
    using file = createSharedMemory('vfio-iommu', 0);
    this.#contexts.push({ inode: inodeOfOwn(file.number), byProcess: false, vfioIoas: 0, objects: [] });
    save();
    try {
      send(turn, file.number, closeOnExec);
    } catch (error) {
      this.#contexts.pop(); // nobody has got it
      save();
      throw error;
    }
    return ANSWERED;
  }

  ioctl(call: Call, command: number, inode: number): number {
    this.unbindClosed();
    const result = iommufdRequest(new CallArgument(call), command, this.#known(inode), this.#hostFor(call));
    this.#parts.save();
    return result;
  }

  /** Opens /dev/vfio/devices/vfioN: whoever has it may do nothing with it but bind it. */
  openDevice(turn: Turn, place: number, closeOnExec: boolean): number {
    using file = openDeviceFile(this.#device(place).driver.files.device);
    this.#parts.detachClosed(place);
    this.#parts.save();
    this.#parts.send(turn, file.number, closeOnExec);
    return ANSWERED;
  }

  /** A request on a descriptor of a device: its result, or `undefined` if it is the device's own business, and the descriptor gives access. */
  deviceIoctl(turn: Turn, command: number, place: number): number | undefined {
    const { call } = turn;
    if (command === VFIO_DEVICE_BIND_IOMMUFD) return this.#bind(turn, place);
    if (this.#parts.hasContainer(place)) return undefined;
    const bound = this.#boundBy(call.tid, call.s32(0), place);
    if (bound === undefined) throw refuse('EINVAL', 'the device is not bound by this descriptor');
    switch (command) {
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        return this.#attach(call, bound);
      case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        return this.#detach(call, bound);
      default:
        return undefined;
    }
  }

  /** A group is put into a context, which is its container from then on. */
  addGroup(call: Call, inode: number): void {
    becomeContainer(this.#known(inode), this.#hostFor(call));
  }

  /**
   * The device of such a group gets its first descriptor: it is bound, and attached to the address space that stands for the container's
   * (drivers/vfio/group.c of Linux 6.12: vfio_df_group_open). It is as long as one is open.
   */
  openOfGroup(call: Call, inode: number, place: number): void {
    const context = this.#known(inode);
    const { id: ioas } = compatIoas(context);
    this.#checkRoom(1, 0);
    const device: BoundDevice = { kind: 'device', id: freeId(context), place, hwpt: 0 };
    context.objects.push(device);
    try {
      attach(context, device, ioas, this.#hostFor(call), () => {});
    } catch (error) {
      remove(context, device, this.#parts.mappings);
      throw error;
    }
  }

  /** Whether a descriptor of the device gives access to it (drivers/vfio/vfio_main.c of Linux 6.12: access_granted). */
  grants(tid: number, fd: number, place: number): boolean {
    return this.#parts.hasContainer(place) || this.#boundBy(tid, fd, place) !== undefined;
  }

  /** Descriptors of the device are its group's. */
  isGroups(place: number): boolean {
    return this.#parts.hasContainer(place);
  }

  /** The id that a device has in the iommufd to which it is bound; `undefined` if it was opened by its group. */
  idOf(place: number): number | undefined {
    return this.isGroups(place) ? undefined : this.#boundOf(place)?.device.id;
  }

  /** Whose mappings a device that is attached may write to; `undefined` if it is not. */
  spaceOf(place: number): Pick<DmaReach, 'container' | 'isLogging'> | undefined {
    const bound = this.#boundOf(place);
    if (bound === undefined || bound.device.hwpt === 0) return undefined;
    const { ioas, logging } = objectOf(bound.context, 'hwpt', bound.device.hwpt);
    return { container: keyOf(bound.context, ioas), isLogging: logging };
  }

  #bind(turn: Turn, place: number): number {
    const { call } = turn;
    const argument = new CallArgument(call);
    const struct = vfio_device_bind_iommufd;
    const { argsz, flags, iommufd } = struct.decode(argument.read(struct.size));
    if (argsz < struct.size || flags !== 0 || iommufd < 0) {
      throw refuse('EINVAL', `VFIO_DEVICE_BIND_IOMMUFD: argsz ${argsz}, flags ${flags}, fd ${iommufd}`);
    }
    const { files } = this.#device(place).driver;
    using own = duplicateFd(call.tid, call.s32(0));
    if (own === undefined) throw refuse('EBADF', 'VFIO_DEVICE_BIND_IOMMUFD: no such descriptor');
    this.unbindClosed();
    this.#parts.detachClosed(place);
    // one that is locked, and neither bound nor the group's, was being bound when the supervisor was killed
    const isLocked = hasLock(own.number);
    if (isLocked && (this.#parts.hasContainer(place) || this.#boundOf(place) !== undefined)) {
      throw refuse('EINVAL', 'VFIO_DEVICE_BIND_IOMMUFD: the descriptor is of the group, or bound');
    }
    if (isOpen(files.group)) throw refuse('EBUSY', 'VFIO_DEVICE_BIND_IOMMUFD: the group is open');
    const context = this.#contextAt(call, iommufd);
    if (!isLocked && isOpen(files.device)) throw refuse('EINVAL', 'VFIO_DEVICE_BIND_IOMMUFD: the device is open');
    this.#checkRoom(1, 0);
    const id = freeId(context);
    argument.write(struct.encode({ argsz, flags, iommufd, out_devid: id }));
    shareLock(own);
    this.#device(place).opened(turn);
    context.objects.push({ kind: 'device', id, place, hwpt: 0 });
    this.#parts.save();
    return 0;
  }

  #contextAt(call: Call, fd: number): IommufdState {
    using file = duplicateFd(call.tid, fd);
    if (file === undefined) throw refuse('EBADF', `VFIO_DEVICE_BIND_IOMMUFD: no descriptor ${fd}`);
    const context = this.context(inodeOfOwn(file.number));
    if (context === undefined) throw refuse('EBADFD', `VFIO_DEVICE_BIND_IOMMUFD: descriptor ${fd} is no iommufd`);
    return context;
  }

  #attach(call: Call, { context, device }: Bound): number {
    const argument = new CallArgument(call);
    const struct = vfio_device_attach_iommufd_pt;
    const { argsz, flags, pt_id } = struct.decode(argument.read(struct.size));
    if (argsz < struct.size || flags !== 0) {
      throw refuse('EINVAL', `VFIO_DEVICE_ATTACH_IOMMUFD_PT: argsz ${argsz}, flags ${flags}`);
    }
    attach(context, device, pt_id, this.#hostFor(call), (hwpt) =>
      argument.write(struct.encode({ argsz, flags, pt_id: hwpt })),
    );
    this.#parts.save();
    return 0;
  }

  #detach(call: Call, { context, device }: Bound): number {
    const struct = vfio_device_detach_iommufd_pt;
    const { argsz, flags } = struct.decode(new CallArgument(call).read(struct.size));
    if (argsz < struct.size || flags !== 0) {
      throw refuse('EINVAL', `VFIO_DEVICE_DETACH_IOMMUFD_PT: argsz ${argsz}, flags ${flags}`);
    }
    detach(context, device);
    this.#parts.save();
    return 0;
  }

  #hostFor(call: Call): IommufdHost {
    const { devices, mappings, mapsFiles, mapper } = this.#parts;
    return {
      pageSize: BigInt(PAGE_SIZE),
      mappings,
      mapsFiles,
      checkRoom: (objects, ranges) => this.#checkRoom(objects, ranges),
      mapper: () => mapper(call.tid),
      mayAccount: () => hasCapability(call.tid, CAP_SYS_RESOURCE),
      hasBar: (address, length) => hasFile(call.tid, this.#bars, address, length),
      fileOf: (fd) => fileOf(call.tid, fd),
      logs: (places) => places.flatMap((place) => devices[place]?.driver.dma?.containerLog ?? []),
    };
  }

  #checkRoom(objects: number, ranges: number): void {
    const all = this.#contexts.flatMap((context) => context.objects);
    const allowed = all.reduce((sum, object) => sum + (object.kind === 'ioas' ? object.allowed.length : 0), 0);
    if (all.length + objects > MAX_OBJECTS || allowed + ranges > MAX_RANGES) {
      throw refuse('ENOMEM', `iommufd: a run has ${MAX_OBJECTS} objects, and ${MAX_RANGES} allowed ranges, at most`);
    }
  }

  /** Devices that nobody has any more are bound no more. */
  unbindClosed(): void {
    for (const context of this.#contexts) {
      for (const object of context.objects) {
        if (object.kind !== 'device' || isOpen(this.#device(object.place).driver.files.device)) continue;
        remove(context, object, this.#parts.mappings);
      }
    }
  }

  #boundOf(place: number): Bound | undefined {
    for (const context of this.#contexts) {
      const device = context.objects.find((object) => object.kind === 'device' && object.place === place);
      if (device?.kind === 'device') return { context, device };
    }
    return undefined;
  }

  #boundBy(tid: number, fd: number, place: number): Bound | undefined {
    using own = duplicateFd(tid, fd);
    return own !== undefined && hasLock(own.number) ? this.#boundOf(place) : undefined;
  }

  #known(inode: number): IommufdState {
    const context = this.context(inode);
    if (context === undefined) throw new RangeError('a context that was known');
    return context;
  }

  #device(place: number): NodeDevice {
    const device = this.#parts.devices[place];
    if (device === undefined) throw new RangeError(`no device ${place}`);
    return device;
  }
}
