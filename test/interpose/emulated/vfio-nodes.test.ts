import { closeSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_MAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_group_status,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
} from '../../../src/abi/vfio.ts';
import { ANSWERED } from '../../../src/interpose/trap/call.ts';
import { EmulatedDma } from '../../../src/interpose/emulated/emulated-dma.ts';
import { MappedProcesses } from '../../../src/interpose/emulated/mapped-processes.ts';
import type { NodeDevice } from '../../../src/interpose/emulated/node-device.ts';
import { VfioNodes } from '../../../src/interpose/emulated/vfio-nodes.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../../src/vfio/server/mapping.ts';
import { DMA_MEMORY_SIZE, dmaMemory } from '../../../src/interpose/memory/dma-memory.ts';
import { JournalLayout } from '../../../src/interpose/memory/journal.ts';
import { Ledgers } from '../../../src/interpose/memory/ledger.ts';
import type { Turn } from '../../../src/interpose/memory/turn.ts';
import { createSim } from '../../../src/sim/create.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { OwnedFd } from '../../../src/sys/fd.ts';
import { inodeOfOwn } from '../../../src/sys/file.ts';
import { trySyscall } from '../../../src/sys/libc.ts';
import { identityOf } from '../../../src/sys/pidfd.ts';
import { device_log } from '../../../src/vfio/server/device-log.ts';
import type { WindowLog } from '../../../src/vfio/server/window-log.ts';
import { crashes } from '../../support/crashes.ts';
import { failure, outcome } from '../../support/errno.ts';
import { nodeDevices } from '../../support/node-devices.ts';
import { GuardedMemory, selfCall, selfIoctl } from '../../support/self-call.ts';
import { turnOf } from '../../support/self-turn.ts';
import { BAD_ADDRESS } from '../../support/user-memory.ts';

const VIABLE = VFIO_GROUP_FLAGS_VIABLE;
const memory = new GuardedMemory();

let files: OwnedFd[];
let opened: string[];
let devices: NodeDevice[];
let journal: Uint8Array;
let mappings: Uint8Array;
let sent: { fd: number; closeOnExec: boolean }[];
let refuseToSend: boolean;
let nodes: VfioNodes;
let ledgers: Ledgers;
const layout = new JournalLayout(0);

/** The nodes as a supervisor finds them. */
function nodesOf(journalled: Uint8Array): VfioNodes {
  ledgers = new Ledgers(layout.ledgers(journalled));
  return new VfioNodes(devices, layout.nodesLedger(journalled, ledgers), mappings, (_, fd, closeOnExec) => {
    if (refuseToSend) throw failure('EMFILE', 'ERR_TARGET');
    const copy = new OwnedFd(trySyscall('dup', fd));
    files.push(copy);
    sent.push({ fd: copy.number, closeOnExec });
  });
}

beforeEach(() => {
  opened = [];
  sent = [];
  refuseToSend = false;
  ({ devices, files } = nodeDevices(2, (n) => void opened.push(`0000:9${n}:00.0`)));
  journal = new Uint8Array(layout.size);
  mappings = new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE);
  nodes = nodesOf(journal);
  nodes.save();
  ledgers.commit([nodes.ledger]);
});

afterEach(() => {
  for (const file of files) file.close();
});

const open = (): Turn => turnOf(selfCall(257, []));

/** Opens /dev/vfio/vfio and returns the descriptor. */
function openContainer(): number {
  expect(nodes.openContainer(open(), true)).toBe(ANSWERED);
  return sent.at(-1)?.fd ?? -1;
}

function openGroup(group = 0): number {
  expect(nodes.openGroup(open(), group, false)).toBe(ANSWERED);
  return sent.at(-1)?.fd ?? -1;
}

/** The target closes what it was given last. */
function closeLast(): void {
  files.pop()?.close();
}

function onGroup(group: number, command: number, argument: Uint8Array | bigint, to: VfioNodes = nodes): string {
  const at = typeof argument === 'bigint' ? argument : memory.put(argument);
  return outcome(() => to.groupIoctl(turnOf(selfIoctl(command, at)), command, group));
}

function onContainer(fd: number, command: number, argument: number | Uint8Array, id = 1n): string {
  const container = nodes.container(inodeOfOwn(fd));
  if (container === undefined) return 'no container';
  const at = typeof argument === 'number' ? argument : memory.put(argument);
  return outcome(() => nodes.containerIoctl(selfIoctl(command, at, id), command, container));
}

/** The first device writes to memory from now on: its log for the container. */
function withDma(): WindowLog {
  const shared = dmaMemory(new Uint8Array(DMA_MEMORY_SIZE));
  shared.my.pages = 1;
  const dma = new EmulatedDma({
    spec: parseSpec('qat,dma=1'),
    place: 0,
    memory: shared,
    arena: new Uint8Array(device_log.size),
    device: createSim(parseSpec('qat')),
    isBusMaster: () => true,
    processes: new MappedProcesses(),
    warn: () => {},
  });
  devices = devices.map((device, n) => (n > 0 ? device : { ...device, driver: { ...device.driver, dma } }));
  journal = new Uint8Array(layout.size);
  mappings = new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE);
  for (const file of files.splice(4)) file.close();
  nodes = nodesOf(journal);
  nodes.save();
  ledgers.commit([nodes.ledger]);
  return dma.containerLog;
}

const int = (value: number): Uint8Array => new Uint8Array(new Int32Array([value]).buffer);
const name = (text: string): Uint8Array => Buffer.from(`${text}\0`);

function status(group: number): number {
  expect(onGroup(group, VFIO_GROUP_GET_STATUS, vfio_group_status.encode({ argsz: 8 }))).toBe('OK');
  return vfio_group_status.decode(memory.end(8)).flags;
}

/** A container with an IOMMU and the first group. */
function attached(): number {
  const container = openContainer();
  openGroup();
  expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('OK');
  expect(onContainer(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe('OK');
  return container;
}

describe('a group', () => {
  it('is attached to a container and detached from it', () => {
    const container = openContainer();
    expect(sent[0]?.closeOnExec).toBe(true);
    openGroup();
    expect(sent[1]?.closeOnExec).toBe(false);
    expect(status(0)).toBe(VIABLE);
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('EINVAL');
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('OK');
    expect(status(0)).toBe(VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect(status(1)).toBe(VIABLE);
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('EINVAL');
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('OK');
    expect(status(0)).toBe(VIABLE);
  });

  it('takes only a container', () => {
    openGroup();
    const file = openSync('/proc/self/exe', 'r');
    for (const fd of [file, sent[0]?.fd ?? -1, 0]) {
      expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(fd)), String(fd)).toBe('EBADFD');
    }
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(9999))).toBe('EBADF');
    closeSync(file);
    for (const fd of [-1, -100, -(2 ** 31)]) expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(fd))).toBe('EINVAL');
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, BAD_ADDRESS)).toBe('EFAULT');
    expect(status(0)).toBe(VIABLE);
  });

  it('gives a device that is its own, once there is an IOMMU', () => {
    openGroup();
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('EINVAL');
    const container = openContainer();
    onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container));
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('EINVAL');
    onContainer(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
    for (const wrong of ['0000:91:00.0', '', '0000:90:00.0x', '0000:90:00', 'x'.repeat(4000)]) {
      expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name(wrong))).toBe('ENODEV');
    }
    for (const options of ['vf_token=2ab74924-c335-45f4-9b16-8569e5b08258', 'vf_token=', 'other', '\t']) {
      expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name(`0000:90:00.0 ${options}`)), options).toBe('EINVAL');
    }
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, BAD_ADDRESS)).toBe('EFAULT');
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, Buffer.from('not terminated'))).toBe('EFAULT');
    expect(opened).toEqual([]);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('OK');
    expect(opened).toEqual(['0000:90:00.0']);
    expect(inodeOfOwn(sent.at(-1)?.fd ?? -1)).toBe(inodeOfOwn(devices[0]?.driver.files.device ?? -1));
    expect(sent.at(-1)?.closeOnExec).toBe(true);
  });

  it('has one opener at a time, and is open as long as its device is', () => {
    openGroup();
    const busy = (): string => outcome(() => nodes.openGroup(open(), 0, false));
    expect(busy()).toBe('EBUSY');
    expect(openGroup(1)).toBeGreaterThan(0);
    closeLast();
    const copy = new OwnedFd(trySyscall('dup', sent[0]?.fd ?? -1));
    closeLast();
    expect(busy(), 'a duplicate').toBe('EBUSY');
    copy.close();

    attached();
    onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'));
    expect(opened).toEqual(['0000:90:00.0']);
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('EBUSY');
    onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'));
    refuseToSend = true;
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('EMFILE');
    refuseToSend = false;
    expect(opened, 'by the first descriptor alone').toEqual(['0000:90:00.0']);
    const [group] = files.splice(-3, 1);
    group?.close();
    expect(busy(), 'of a device that is open').toBe('EBUSY');
    closeLast();
    expect(busy()).toBe('EBUSY');
    closeLast();
    attached();
    onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'));
    expect(opened, 'again').toEqual(['0000:90:00.0', '0000:90:00.0']);
  });

  it('says what it is only where argsz has room, and has no other ioctl', () => {
    for (const argsz of [0, 7]) {
      expect(onGroup(0, VFIO_GROUP_GET_STATUS, vfio_group_status.encode({ argsz }))).toBe('EINVAL');
    }
    expect(onGroup(0, VFIO_GROUP_GET_STATUS, BAD_ADDRESS)).toBe('EFAULT');
    expect(onGroup(0, VFIO_GROUP_GET_STATUS, new Uint8Array(7))).toBe('EFAULT');
    for (const command of [VFIO_GET_API_VERSION, VFIO_DEVICE_GET_INFO, 0x3b7d]) {
      expect(onGroup(0, command, 0n)).toBe('ENOTTY');
    }
  });
});

describe('a group whose container is /dev/iommu', () => {
  const device = name('0000:90:00.0');
  const objectsOf = (fd: number): readonly object[] => nodes.iommufds.context(inodeOfOwn(fd))?.objects ?? [];
  /** Opens /dev/iommu and puts the first group into it. */
  function grouped(): number {
    expect(nodes.iommufds.open(open(), true)).toBe(ANSWERED);
    const iommu = sent.at(-1)?.fd ?? -1;
    openGroup();
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(iommu))).toBe('OK');
    return iommu;
  }
  const onIommu = (fd: number, command: number, argument: number | Uint8Array, id = 1n): string => {
    const at = typeof argument === 'number' ? argument : memory.put(argument);
    return outcome(() => nodes.iommufds.ioctl(selfIoctl(command, at, id), command, inodeOfOwn(fd)));
  };
  const map = vfio_iommu_type1_dma_map.encode({
    argsz: 32,
    flags: VFIO_DMA_MAP_FLAG_READ,
    size: 4096n,
    vaddr: 4096n,
  });

  it('gives its device, which has the address space of the container as long as somebody has it', () => {
    const iommu = grouped();
    expect(status(0)).toBe(VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(iommu))).toBe('EINVAL');
    expect(onIommu(iommu, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe('OK');
    expect(onIommu(iommu, VFIO_IOMMU_MAP_DMA, map)).toBe('OK');
    expect(nodes.reachOf(0)).toBeUndefined();
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(opened).toEqual(['0000:90:00.0']);
    const space = nodes.reachOf(0)?.container ?? 0n;
    expect(nodes.mappings.at(space, 0n)?.vaddr).toBe(4096n);
    expect(objectsOf(iommu)).toHaveLength(3); // ioas, device, page table
    closeLast();
    closeLast();
    expect(onIommu(iommu, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EEXIST');
    expect([nodes.reachOf(0), objectsOf(iommu)]).toEqual([undefined, [expect.anything()]]);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(nodes.reachOf(0)?.container).toBe(space);
    expect(opened).toHaveLength(2);
  });

  it('may leave it though the device is open, which stays bound', () => {
    const iommu = grouped();
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('OK');
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('EINVAL');
    expect(status(0)).toBe(VIABLE);
    expect(nodes.reachOf(0)).toBeDefined();
    expect(objectsOf(iommu)).toHaveLength(3);
  });

  it('is in none for the next user, nor for who binds the device by its own node', () => {
    grouped();
    closeLast();
    expect(nodes.iommufds.openDevice(open(), 0, true)).toBe(ANSWERED);
    expect(nodes.iommufds.isGroups(0)).toBe(false);
    openGroup();
    expect(status(0)).toBe(VIABLE);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('EINVAL');
  });

  it('keeps the context from being forgotten, as long as somebody has it', () => {
    const iommu = grouped();
    const [group] = files.slice(-1);
    for (let n = 0; n < 40; n += 1) nodes.iommufds.open(open(), true);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(objectsOf(iommu)).toHaveLength(3);
    closeLast();
    group?.close();
    for (let n = 0; n < 40; n += 1) nodes.iommufds.open(open(), true);
    expect(nodes.iommufds.context(inodeOfOwn(iommu))).toBeUndefined();
  });

  it('gives the device once, though the supervisor was killed before the caller had it', () => {
    const iommu = grouped();
    ledgers.commit([nodes.ledger]);
    refuseToSend = true;
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('EMFILE');
    ledgers.commit([nodes.ledger]);
    refuseToSend = false;
    nodes = nodesOf(journal);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, device)).toBe('OK');
    expect(objectsOf(iommu)).toHaveLength(3);
    expect(nodes.reachOf(0)).toBeDefined();
  });
});

describe('a container', () => {
  const map = vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: VFIO_DMA_MAP_FLAG_READ, size: 4096n });

  it('loses its IOMMU and its mappings with its last group', () => {
    const container = attached();
    openGroup(1);
    onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container));
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map)).toBe('OK');
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('OK');
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EEXIST');
    expect(onGroup(1, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('OK');
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS);
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 3n)).toBe('EINVAL');
  });

  it('loses a group, and with the last all else, that nobody has any more', () => {
    const container = attached();
    const [group] = files.splice(-1, 1);
    openGroup(1);
    onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container));
    const [other] = files.splice(-1, 1);
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map)).toBe('OK');
    group?.close();
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EEXIST');
    expect([status(0), status(1)]).toEqual([VIABLE, VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET]);
    expect(onGroup(1, VFIO_GROUP_GET_DEVICE_FD, name('0000:91:00.0'))).toBe('OK');
    other?.close();
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 3n), 'by its device it has one').toBe('EEXIST');
    closeLast();
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 4n)).toBe('EINVAL');
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS);
    expect(onContainer(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe('EINVAL');
  });

  it('is empty for who comes next, if nobody has its last group any more', () => {
    const container = attached();
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map)).toBe('OK');
    closeLast();
    openGroup(1);
    expect(onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('OK');
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EINVAL');
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS);
  });

  it('is detached by the next user of its group', () => {
    const container = attached();
    onContainer(container, VFIO_IOMMU_MAP_DMA, map);
    closeLast();
    openGroup();
    expect(status(0)).toBe(VIABLE);
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS);
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EINVAL');
  });

  it('is forgotten for newer ones only while it has no group', () => {
    const kept = attached();
    const unused = openContainer();
    for (let n = 0; n < 62; n += 1) openContainer();
    expect(nodes.container(inodeOfOwn(unused))).toBeDefined();
    openContainer();
    expect(nodes.container(inodeOfOwn(unused))).toBeUndefined();
    expect(onContainer(kept, VFIO_IOMMU_MAP_DMA, map)).toBe('OK');
  });

  it('has lost the group that nobody had, though the next user could not be given it', () => {
    const container = attached();
    onContainer(container, VFIO_IOMMU_MAP_DMA, map);
    closeLast();
    refuseToSend = true;
    expect(outcome(() => nodes.openGroup(open(), 0, false))).toBe('EMFILE');
    expect(status(0)).toBe(VIABLE);
    expect(onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n)).toBe('EINVAL');
  });

  it('that nobody could be given is none', () => {
    const mine = openContainer();
    refuseToSend = true;
    for (let n = 0; n < 100; n += 1) expect(outcome(() => nodes.openContainer(open(), false))).toBe('EMFILE');
    expect(nodes.container(inodeOfOwn(mine))).toBeDefined();
  });
});

describe('what a device may write to', () => {
  it('is what its container has mapped, as long as somebody has it open', () => {
    expect(nodes.reachOf(0)).toBeUndefined();
    const container = openContainer();
    openGroup();
    onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container));
    expect(nodes.reachOf(0), 'without an IOMMU').toBeUndefined();
    onContainer(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
    expect(nodes.reachOf(1), 'of another device').toBeUndefined();
    const [reach, inode] = [nodes.reachOf(0), BigInt(inodeOfOwn(container))];
    expect(reach).toMatchObject({ container: inode, isLogging: false, mappings: nodes.mappings });
    expect(reach?.isOpen()).toBe(false);
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('OK');
    expect(reach?.isOpen()).toBe(true);
    closeLast();
    expect(reach?.isOpen()).toBe(false);
    const begin = vfio_iommu_type1_dirty_bitmap.encode({ argsz: 8, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_START });
    expect(onContainer(container, VFIO_IOMMU_DIRTY_PAGES, begin)).toBe('OK');
    expect(nodes.reachOf(0)?.isLogging).toBe(true);
  });

  it('is any other device of the container that somebody has open', () => {
    const container = attached();
    const others = (of: number): string[] | undefined =>
      nodes
        .reachOf(of)
        ?.peers()
        .map((peer) => peer.name);
    const openDevice = (n: number): string => onGroup(n, VFIO_GROUP_GET_DEVICE_FD, name(`0000:9${n}:00.0`));
    expect(openDevice(0)).toBe('OK');
    openGroup(1);
    onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container));
    expect([others(0), others(1)]).toEqual([[], ['0000:90:00.0']]);
    expect(openDevice(1)).toBe('OK');
    expect([others(0), others(1)]).toEqual([['0000:91:00.0'], ['0000:90:00.0']]);
    expect(nodes.reachOf(0)?.peers()[0]?.device).toBe(devices[1]?.driver.sim);
    closeLast();
    expect(others(0)).toEqual([]);
  });

  it('is no device of another container', () => {
    attached();
    expect(onGroup(0, VFIO_GROUP_GET_DEVICE_FD, name('0000:90:00.0'))).toBe('OK');
    const container = openContainer();
    openGroup(1);
    onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container));
    onContainer(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
    expect(onGroup(1, VFIO_GROUP_GET_DEVICE_FD, name('0000:91:00.0'))).toBe('OK');
    expect([0, 1].map((n) => nodes.reachOf(n)?.peers())).toEqual([[], []]);
  });

  const map = vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: 3, size: 4096n });

  it('is known with the process that mapped it, if there is a device that writes to memory', () => {
    let container = attached();
    onContainer(container, VFIO_IOMMU_MAP_DMA, map);
    expect(nodes.mappings.at(BigInt(inodeOfOwn(container)), 0n)?.process).toBe(0n);
    const log = withDma();
    container = attached();
    onContainer(container, VFIO_IOMMU_MAP_DMA, map, 2n);
    expect(nodes.mappings.at(BigInt(inodeOfOwn(container)), 0n)?.process).toBe(identityOf(process.pid));
    expect(log.within({ iova: 0n, length: 2n ** 40n }).length).toBe(4096n);
  });

  it('is told by the container in which it is, of no other', () => {
    const log = withDma();
    log.note(0);
    const container = attached();
    const size = { bitmap_pgsize: 4096n, bitmap_size: 8n };
    const get = new Uint8Array(8 + vfio_iommu_type1_dirty_bitmap_get.size);
    const flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
    vfio_iommu_type1_dirty_bitmap.encode({ argsz: get.length, flags }, get);
    const at = { iova: 0n, size: 4096n, bitmap_data: BigInt(memory.address) };
    vfio_iommu_type1_dirty_bitmap_get.encode({ ...at, ...size }, get, 8);
    const told = (): number => {
      expect(onContainer(container, VFIO_IOMMU_DIRTY_PAGES, get)).toBe('OK');
      return memory.bytes[0] ?? -1;
    };
    const begin = vfio_iommu_type1_dirty_bitmap.encode({ argsz: 8, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_START });
    onContainer(container, VFIO_IOMMU_DIRTY_PAGES, begin);
    expect(told()).toBe(0);
    log.note(0);
    expect([told(), told()]).toEqual([1, 0]);
    // another group keeps the container as it is
    openGroup(1);
    expect(onGroup(1, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('OK');
    expect(onGroup(0, VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe('OK');
    log.note(0);
    expect(told()).toBe(0);
    expect(onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container))).toBe('OK');
    expect(told()).toBe(0);
  });
});

describe('what a successor finds', () => {
  it('are the nodes as they were, with their mappings', () => {
    const container = attached();
    onContainer(container, VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: 1, size: 4096n }));
    ledgers.commit([nodes.ledger]);
    nodes = nodesOf(journal);
    expect(status(0)).toBe(VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS - 1);
    expect(nodes.container(inodeOfOwn(container))).toMatchObject({ iommu: VFIO_TYPE1v2_IOMMU, logging: false });
  });

  it('is the state before or after a call that was cut off, and the call can be served again', () => {
    const container = openContainer();
    openGroup();
    ledgers.commit([nodes.ledger]);
    const call = (to: VfioNodes): string => {
      const result = onGroup(0, VFIO_GROUP_SET_CONTAINER, int(container), to);
      if (result === 'OK') ledgers.commit([to.ledger], new Uint32Array([5, 6]));
      return result;
    };
    const images = crashes(journal, () => expect(call(nodes)).toBe('OK'));
    const seen = new Set<boolean>();
    for (const image of images) {
      const successor = nodesOf(image);
      const isDone = ledgers.isOf(new Uint32Array([5, 6]));
      seen.add(isDone);
      expect(successor.hasGroup({ inode: inodeOfOwn(container), iommu: 0, logging: false })).toBe(isDone);
      if (!isDone) expect(call(successor)).toBe('OK');
    }
    expect(seen.size).toBe(2);
  });
});
