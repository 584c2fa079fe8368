import {
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../../abi/vfio.ts';
import { O_RDWR } from '../../abi/fcntl.ts';
import type { ShimError } from '../../error.ts';
import type { Kernel } from '../../sim/common-options.ts';
import { inodeOfOwn, lockFile, openAnew } from '../../sys/file.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import { createSharedMemory } from '../../sys/memory.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { ANSWERED, type Call } from '../trap/call.ts';
import { CallArgument } from '../trap/call-argument.ts';
import type { ContainerState } from '../../vfio/server/container.ts';
import { containerRequest } from '../../vfio/server/container-requests.ts';
import { DmaMappings } from '../../vfio/server/dma-mappings.ts';
import type { MemoryOwner } from '../../vfio/server/mapping.ts';
import type { DmaPeer, DmaReach, EmulatedDma } from './emulated-dma.ts';
import { ownerOf } from './mapped-processes.ts';
import { Iommufds } from './iommufds.ts';
import type { NodeDevice, SendFd } from './node-device.ts';
import { checkName, isOpen, openDeviceFile, shareLock } from './node-files.ts';
import { loadNodes, saveNodes, type NodesState } from './nodes-state.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { Turn } from '../memory/turn.ts';
import { identify, type Descriptor } from '../serve/descriptor.ts';

/** Containers that are open at once; a target that opens more loses the oldest without a group. */
const MAX_CONTAINERS = 64;

/** The emulated /dev/vfio: containers and groups, and which belongs to which; beside them /dev/iommu, and devices by nodes of their own. */
export class VfioNodes {
  readonly mappings: DmaMappings;
  readonly ledger: Ledger;
  readonly iommufds: Iommufds;
  readonly #devices: readonly NodeDevice[];
  readonly #groupInodes: readonly number[];
  readonly #send: SendFd;
  /** There is a device that writes to memory. */
  readonly #doDma: boolean;
  readonly #kernel: Kernel;
  readonly #state: NodesState;

  constructor(
    devices: readonly NodeDevice[],
    ledger: Ledger,
    mappings: Uint8Array,
    send: SendFd,
    kernel: Kernel = '6.12',
  ) {
    this.#kernel = kernel;
    this.ledger = ledger;
    this.mappings = new DmaMappings(mappings);
    this.#devices = devices;
    this.#groupInodes = devices.map(({ driver }) => inodeOfOwn(driver.files.group));
    this.#send = send;
    this.#doDma = devices.some(({ driver }) => driver.dma !== undefined);
    this.#state = this.ledger.isFresh
      ? { containers: [], groups: devices.map(() => 0), iommufds: [] }
      : loadNodes(this.ledger.arena);
    this.iommufds = new Iommufds(this.#state.iommufds, {
      devices,
      mappings: this.mappings,
      mapsFiles: kernel !== '6.12',
      send,
      save: () => this.save(),
      mapper: (tid) => this.#mapper(tid),
      hasContainer: (group) => this.#state.groups[group] !== 0,
      isContainer: (inode) => this.#state.groups.includes(inode),
      detachClosed: (group) => {
        const container = this.container(this.#state.groups[group] ?? 0);
        if (container !== undefined) this.#detachClosed(container);
        else if (!this.#isOpen(group)) this.#state.groups[group] = 0; // its container was /dev/iommu
      },
    });
  }

  /** Puts what changed into the arena. */
  save(): void {
    saveNodes(this.#state, this.ledger.arena);
  }

  hasGroup(container: ContainerState): boolean {
    return this.#state.groups.includes(container.inode);
  }

  container(inode: number): ContainerState | undefined {
    return this.#state.containers.find((candidate) => candidate.inode === inode);
  }

  /** A group, or a container. */
  whose(inode: number): Descriptor | undefined {
    const group = this.#groupInodes.indexOf(inode);
    if (group >= 0) return { kind: 'group', group };
    if (this.iommufds.context(inode) !== undefined) return { kind: 'iommufd', inode };
    return this.container(inode) === undefined ? undefined : { kind: 'container', inode };
  }

  ioctl(turn: Turn, command: number, what: Extract<Descriptor, { kind: 'group' | 'container' | 'iommufd' }>): number {
    if (what.kind === 'iommufd') return this.iommufds.ioctl(turn.call, command, what.inode);
    if (what.kind === 'group') return this.groupIoctl(turn, command, what.group);
    const container = this.container(what.inode);
    if (container === undefined) throw new RangeError('a container that was known');
    return this.containerIoctl(turn.call, command, container);
  }

  /** Opens /dev/vfio/vfio. */
  openContainer(turn: Turn, closeOnExec: boolean): number {
    const { containers } = this.#state;
    if (containers.length >= MAX_CONTAINERS) {
      const unused = containers.findIndex((candidate) => !this.hasGroup(candidate));
      if (unused < 0) throw refuse('EMFILE', `open /dev/vfio/vfio: ${MAX_CONTAINERS} containers are in use`);
      this.#forget(containers.splice(unused, 1));
    }
    using file = createSharedMemory('vfio-container', 0);
    containers.push({ inode: inodeOfOwn(file.number), iommu: 0, logging: false });
    this.save();
    try {
      this.#send(turn, file.number, closeOnExec);
    } catch (error) {
      containers.pop(); // nobody has got it
      this.save();
      throw error;
    }
    return ANSWERED;
  }

  /**
   * Opens /dev/vfio/N. A group has one opener, and devices of it that are open keep it open (drivers/vfio/group.c of Linux 6.12:
   * vfio_group_fops_open, vfio_device_open_file), so who comes after them finds it detached.
   */
  openGroup(turn: Turn, group: number, closeOnExec: boolean): number {
    const { groups } = this.#state;
    const { files } = this.#device(group).driver;
    using file = openAnew(files.group, O_RDWR);
    if (!lockFile(file.number, 'exclusive') || isOpen(files.device)) {
      throw refuse('EBUSY', `open /dev/vfio/N: the group of ${this.#device(group).name} is open`);
    }
    groups[group] = 0; // nobody had it any more
    this.#dropUnused();
    this.save();
    this.#send(turn, file.number, closeOnExec);
    return ANSWERED;
  }

  containerIoctl(call: Call, command: number, container: ContainerState): number {
    this.#detachClosed(container);
    const result = containerRequest(new CallArgument(call), command, container, {
      pageSize: BigInt(PAGE_SIZE),
      mappings: this.mappings,
      hasGroup: (of) => this.hasGroup(of),
      tellsOverflow: this.#kernel !== '6.12',
      mapper: () => this.#mapper(call.tid),
      logs: (of) => this.#dmaIn(of).map(({ containerLog }) => containerLog),
    });
    this.save();
    return result;
  }

  #mapper(tid: number): MemoryOwner {
    return this.#doDma ? ownerOf(tid) : { process: 0n, program: 0n };
  }

  /** What the device of a group may write to; `undefined` if that is nothing. */
  reachOf(group: number): DmaReach | undefined {
    const space = this.#spaceOf(group);
    if (space === undefined) return undefined;
    return {
      ...space,
      mappings: this.mappings,
      isOpen: () => isOpen(this.#device(group).driver.files.device),
      peers: () => this.#peersOf(group, space.container),
    };
  }

  /** Whose mappings are the device's: its container's, or the address space's that it is attached to. */
  #spaceOf(group: number): Pick<DmaReach, 'container' | 'isLogging'> | undefined {
    const container = this.container(this.#state.groups[group] ?? 0);
    if (container === undefined) return this.iommufds.spaceOf(group);
    return container.iommu === 0 ? undefined : { container: BigInt(container.inode), isLogging: container.logging };
  }

  #peersOf(group: number, space: bigint): DmaPeer[] {
    return this.#devices.flatMap(({ name, driver: { sim, files } }, other) =>
      other !== group && this.#spaceOf(other)?.container === space && isOpen(files.device)
        ? [{ name, device: sim }]
        : [],
    );
  }

  #dmaIn(container: ContainerState): EmulatedDma[] {
    const { groups } = this.#state;
    return this.#devices.flatMap(({ driver }, group) =>
      driver.dma !== undefined && groups[group] === container.inode ? [driver.dma] : [],
    );
  }

  groupIoctl(turn: Turn, command: number, group: number): number {
    const { call } = turn;
    const { groups } = this.#state;
    const container = this.container(groups[group] ?? 0);
    const hasContainer = groups[group] !== 0;
    switch (command) {
      case VFIO_GROUP_GET_STATUS: {
        const { argsz } = vfio_group_status.decode(call.readArg(2, vfio_group_status.size));
        if (argsz < vfio_group_status.size) throw refuse('EINVAL', `VFIO_GROUP_GET_STATUS: argsz ${argsz}`);
        const flags = VFIO_GROUP_FLAGS_VIABLE | (hasContainer ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0);
        call.writeArg(2, vfio_group_status.encode({ argsz, flags }));
        return 0;
      }
      case VFIO_GROUP_SET_CONTAINER: {
        const [fd = -1] = new Int32Array(call.readArg(2, 4).buffer);
        if (fd < 0) throw refuse('EINVAL', `VFIO_GROUP_SET_CONTAINER: fd ${fd}`);
        if (hasContainer) throw refuse('EINVAL', 'VFIO_GROUP_SET_CONTAINER: the group has a container');
        const what = identify(this, call.tid, fd);
        if (what?.kind === 'iommufd') {
          this.iommufds.addGroup(call, what.inode);
          groups[group] = what.inode;
          this.save();
          return 0;
        }
        const target = what?.kind === 'container' ? this.container(what.inode) : undefined;
        if (target === undefined) throw noContainer(call.tid, fd);
        this.#detachClosed(target);
        groups[group] = target.inode;
        this.#device(group).driver.dma?.containerLog.clear(); // it may have been in another
        this.save();
        return 0;
      }
      case VFIO_GROUP_UNSET_CONTAINER:
        if (!hasContainer) throw refuse('EINVAL', 'VFIO_GROUP_UNSET_CONTAINER: the group has none');
        // a device that /dev/iommu is the container of stays bound to it (drivers/vfio/group.c: vfio_group_ioctl_unset_container)
        if (container !== undefined && isOpen(this.#device(group).driver.files.device)) {
          throw refuse('EBUSY', 'VFIO_GROUP_UNSET_CONTAINER: the device is open');
        }
        groups[group] = 0;
        if (container !== undefined && !this.hasGroup(container)) this.#release(container);
        this.save();
        return 0;
      case VFIO_GROUP_GET_DEVICE_FD:
        return this.#getDevice(turn, group, container);
      case VFIO_GET_API_VERSION:
      default:
        throw refuse('ENOTTY', `group: no ioctl 0x${command.toString(16)}`);
    }
  }

  #getDevice(turn: Turn, group: number, container: ContainerState | undefined): number {
    const name = turn.call.stringArg(2, 4096);
    if (name === undefined) throw refuse('EFAULT', 'VFIO_GROUP_GET_DEVICE_FD: no name');
    const device = this.#device(group);
    checkName(name, device.name);
    const inode = this.#state.groups[group] ?? 0;
    if (inode === 0 || container?.iommu === 0) {
      throw refuse('EINVAL', 'VFIO_GROUP_GET_DEVICE_FD: the group needs a container with an IOMMU');
    }
    this.iommufds.unbindClosed();
    using file = openDeviceFile(device.driver.files.device);
    const isFirst = lockFile(file.number, 'exclusive');
    if (isFirst && container === undefined) {
      this.iommufds.openOfGroup(turn.call, inode, group);
      this.save();
    }
    shareLock(file);
    // noted beforehand: who has the descriptor may look at once. If it is not given, the next one is the first too
    if (isFirst) device.opened(turn);
    this.#send(turn, file.number, true);
    return ANSWERED;
  }

  #device(group: number): NodeDevice {
    const device = this.#devices[group];
    if (device === undefined) throw new RangeError(`no group ${group}`);
    return device;
  }

  /** Nobody has these groups any more, so the container has lost them (drivers/vfio/group.c of Linux 6.12: vfio_group_fops_release). */
  #detachClosed(container: ContainerState): void {
    const { groups } = this.#state;
    for (const [group, inode] of groups.entries()) {
      if (inode === container.inode && !this.#isOpen(group)) groups[group] = 0;
    }
    if (container.iommu !== 0 && !this.hasGroup(container)) this.#release(container);
  }

  /** Somebody has a group, or its device. */
  #isOpen(group: number): boolean {
    const { files } = this.#device(group).driver;
    return isOpen(files.group) || isOpen(files.device);
  }

  /** What a container without groups loses: its IOMMU and with it the mappings. */
  #release(container: ContainerState): void {
    container.iommu = 0;
    container.logging = false;
    this.mappings.unmapAll(BigInt(container.inode), 0n);
  }

  #forget(containers: readonly ContainerState[]): void {
    for (const container of containers) this.#release(container);
  }

  #dropUnused(): void {
    for (const container of this.#state.containers) {
      if (container.iommu !== 0 && !this.hasGroup(container)) this.#release(container);
    }
  }
}

/** Nothing has that descriptor, or something else. */
function noContainer(tid: number, fd: number): ShimError {
  using file = duplicateFd(tid, fd);
  return refuse(file === undefined ? 'EBADF' : 'EBADFD', `VFIO_GROUP_SET_CONTAINER: fd ${fd} is no container`);
}
