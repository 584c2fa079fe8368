import { groupHasContainer, KernelContainer } from '../../kernel/container.ts';
import { AccessThread } from '../../kernel/access-thread.ts';
import { FdPort } from '../../kernel/fd-port.ts';
import type { FdSessions } from '../../kernel/fd-sessions.ts';
import type { DeviceHandle } from '../../kernel/handle.ts';
import { ThreadedPort, type ThreadedOptions } from '../../kernel/threaded-port.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { characterDevice } from '../../sys/file.ts';
import { mapSharedMemory } from '../../sys/memory.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import { FdStore } from '../../sys/socket.ts';
import type { DirtyContainer } from '../../vfio/dirty-container.ts';
import type { VfioPort } from '../../vfio/port.ts';
import { partOffset, PARTS_FD, fdStoreFds, type Part } from '../memory/inherited.ts';
import { linkOf } from '../trap/kernel-names.ts';

/** How a supervisor reaches the target's devices and the memory that outlives it. A test hands in devices that are not there. */
export interface Reach {
  /** A duplicate of the target's descriptor; `undefined` if it has none of that number. Throws as duplicateFd(). */
  duplicate(tid: number, fd: number): OwnedFd | undefined;
  /** Whether a descriptor of this process is a device that was opened through its group. */
  isGroupDevice(fd: number): boolean;
  /** The group behind a descriptor of this process, by a name that is no other's; `undefined` if it can be none. */
  group(fd: number): string | undefined;
  /** Whether a group is in a container. Throws if that cannot be told. */
  hasContainer(group: number): boolean;
  container(fd: number): DirtyContainer;
  port(device: DeviceHandle, sessions?: FdSessions): VfioPort;
  /** The port of a v1 driver whose slow accesses do not hold up other devices. */
  threaded(port: VfioPort, device: DeviceHandle, options: Pick<ThreadedOptions, 'caller' | 'hasOthers'>): VfioPort;
  /** Maps a part of the memory of the device in a place. */
  map(place: number, part: Part, size: number): { bytes: Uint8Array; address: number };
  /** Where the data fd of the device in a place is kept. */
  fdStore(place: number): Pick<FdStore, 'put' | 'peek' | 'clear'>;
}

export const kernelReach: Reach = {
  duplicate: duplicateFd,
  isGroupDevice: (fd) => linkOf(`/proc/self/fd/${fd}`) === 'anon_inode:[vfio-device]',
  group: characterDevice,
  hasContainer: groupHasContainer,
  container: (fd) => new KernelContainer(fd),
  port: (device, sessions) => new FdPort(device, sessions),
  threaded: (port, device, { caller, hasOthers }) =>
    new ThreadedPort(port, device, { caller, hasOthers, makeAccessor: () => new AccessThread() }),
  map: (place, part, size) => mapSharedMemory(PARTS_FD, size, partOffset(place, part)),
  fdStore: (place) => new FdStore(...fdStoreFds({ devices: [] }, place)),
};
