import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as abi from '../../../src/abi/iommufd.ts';
import type { Fields, Struct, Values } from '../../../src/abi/struct.ts';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_GET_INFO,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../../../src/abi/vfio.ts';
import { ANSWERED } from '../../../src/interpose/trap/call.ts';
import type { NodeDevice } from '../../../src/interpose/emulated/node-device.ts';
import { VfioNodes } from '../../../src/interpose/emulated/vfio-nodes.ts';
import { JournalLayout } from '../../../src/interpose/memory/journal.ts';
import { Ledgers } from '../../../src/interpose/memory/ledger.ts';
import { OwnedFd } from '../../../src/sys/fd.ts';
import { inodeOfOwn } from '../../../src/sys/file.ts';
import { addressOf, arch, trySyscall } from '../../../src/sys/libc.ts';
import { mapSharedMemory, withSharedMemory } from '../../../src/sys/memory.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../../src/vfio/server/mapping.ts';
import { outcome } from '../../support/errno.ts';
import { nodeDevices } from '../../support/node-devices.ts';
import { GuardedMemory, selfCall } from '../../support/self-call.ts';
import { turnOf } from '../../support/self-turn.ts';

const PAGE = 4096n;
const FIXED = abi.IOMMU_IOAS_MAP_FIXED_IOVA | abi.IOMMU_IOAS_MAP_READABLE;
const memory = new GuardedMemory();
const layout = new JournalLayout(0);

let files: OwnedFd[];
let devices: NodeDevice[];
let opened: number[];
let journal: Uint8Array;
let mappings: Uint8Array;
let sent: number[];
let ledgers: Ledgers;
let nodes: VfioNodes;

function nodesOf(journalled: Uint8Array): VfioNodes {
  ledgers = new Ledgers(layout.ledgers(journalled));
  return new VfioNodes(devices, layout.nodesLedger(journalled, ledgers), mappings, (_, fd) => {
    const copy = new OwnedFd(trySyscall('dup', fd));
    files.push(copy);
    sent.push(copy.number);
  });
}

const commit = (): void => ledgers.commit([nodes.ledger]);

beforeEach(() => {
  opened = [];
  sent = [];
  ({ devices, files } = nodeDevices(2, (n) => void opened.push(n)));
  journal = new Uint8Array(layout.size);
  mappings = new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE);
  nodes = nodesOf(journal);
  nodes.save();
  commit();
});

afterEach(() => {
  for (const file of files) file.close();
});

function openIommu(): number {
  expect(nodes.iommufds.open(turnOf(selfCall(257, [])), true)).toBe(ANSWERED);
  return sent.at(-1) ?? -1;
}

function openDevice(place = 0): number {
  expect(nodes.iommufds.openDevice(turnOf(selfCall(257, [])), place, true)).toBe(ANSWERED);
  return sent.at(-1) ?? -1;
}

function close(fd: number): void {
  files.find((file) => file.number === fd)?.close();
}

let answer: Readonly<Record<string, number | bigint>> = {};
function ioctl<F extends Fields>(
  struct: Struct<F>,
  fields: Partial<Values<F>>,
  make: (at: number) => number | undefined,
): string {
  const at = memory.put(struct.encode(fields));
  const result = outcome(() => make(at));
  answer = struct.decode(memory.end(struct.size));
  return result;
}

function onIommu<F extends Fields>(
  fd: number,
  command: number,
  struct: Struct<F>,
  fields: Partial<Values<F>>,
  id = 1n,
): string {
  const { ioctl: nr } = arch.syscalls;
  return ioctl(struct, { size: struct.size, ...fields }, (at) =>
    nodes.iommufds.ioctl(selfCall(nr, [fd, command, at], id), command, inodeOfOwn(fd)),
  );
}

function onDevice<F extends Fields>(
  fd: number,
  place: number,
  command: number,
  struct: Struct<F>,
  fields: Partial<Values<F>>,
): string {
  const { ioctl: nr } = arch.syscalls;
  return ioctl(struct, { argsz: struct.size, ...fields }, (at) =>
    nodes.iommufds.deviceIoctl(turnOf(selfCall(nr, [fd, command, at])), command, place),
  );
}

const bind = (fd: number, iommufd: number, place = 0): string =>
  onDevice(fd, place, VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd, { iommufd });
const attach = (fd: number, pt_id: number, place = 0): string =>
  onDevice(fd, place, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfio_device_attach_iommufd_pt, { pt_id });
const look = (fd: number): string =>
  outcome(() =>
    nodes.iommufds.deviceIoctl(
      turnOf(selfCall(arch.syscalls.ioctl, [fd, VFIO_DEVICE_GET_INFO, 0])),
      VFIO_DEVICE_GET_INFO,
      0,
    ),
  );
const alloc = (iommu: number): string => onIommu(iommu, abi.IOMMU_IOAS_ALLOC, abi.iommu_ioas_alloc, {});

describe('a device by its own node', () => {
  it('is bound by one descriptor, as long as that is open', () => {
    const iommu = openIommu();
    const [first, second] = [openDevice(), openDevice()];
    expect([look(first), attach(first, 1)]).toEqual(['EINVAL', 'EINVAL']);
    expect(bind(first, iommu)).toBe('OK');
    expect([answer['out_devid'], opened]).toEqual([1, [0]]);
    expect([look(first), look(second), bind(first, iommu), bind(second, iommu)]).toEqual([
      'OK',
      'EINVAL',
      'EINVAL',
      'EINVAL',
    ]);
    const copy = new OwnedFd(trySyscall('dup', first));
    close(first);
    expect(bind(second, iommu), 'a duplicate is open').toBe('EINVAL');
    copy.close();
    expect(bind(second, iommu)).toBe('OK');
    expect([answer['out_devid'], opened]).toEqual([1, [0, 0]]);
  });

  it('says what is wrong with a request', () => {
    const iommu = openIommu();
    const device = openDevice();
    const wrong: [Partial<Values<typeof vfio_device_bind_iommufd.fields>>, string][] = [
      [{ argsz: 15, iommufd: iommu }, 'EINVAL'],
      [{ flags: 1, iommufd: iommu }, 'EINVAL'],
      [{ iommufd: -1 }, 'EINVAL'],
      [{ iommufd: 99_999 }, 'EBADF'],
      [{ iommufd: device }, 'EBADFD'],
    ];
    for (const [fields, errno] of wrong) {
      const result = onDevice(device, 0, VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd, fields);
      expect(result, JSON.stringify(fields)).toBe(errno);
    }
    expect(bind(device, iommu)).toBe('OK');
    for (const fields of [{ argsz: 11 }, { flags: 1 }]) {
      expect(onDevice(device, 0, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfio_device_attach_iommufd_pt, fields)).toBe('EINVAL');
    }
    const detach = (fields: object): string =>
      onDevice(device, 0, VFIO_DEVICE_DETACH_IOMMUFD_PT, vfio_device_detach_iommufd_pt, fields);
    expect([detach({ flags: 1 }), detach({ argsz: 7 }), detach({})]).toEqual(['EINVAL', 'EINVAL', 'OK']);
  });

  it('and its group keep each other out', () => {
    const iommu = openIommu();
    const device = openDevice();
    expect(nodes.openGroup(turnOf(selfCall(257, [])), 0, true)).toBe(ANSWERED);
    const group = sent.at(-1) ?? -1;
    expect(bind(device, iommu)).toBe('EBUSY');
    close(group);
    expect(bind(device, iommu)).toBe('OK');
    expect(outcome(() => nodes.openGroup(turnOf(selfCall(257, [])), 0, true))).toBe('EBUSY');
  });

  it('is bound once, though the supervisor was killed when it had locked it', () => {
    const iommu = openIommu();
    const device = openDevice();
    commit();
    expect(bind(device, iommu)).toBe('OK');
    nodes = nodesOf(journal); // without a commit
    expect(look(device)).toBe('EINVAL');
    expect(bind(device, iommu)).toBe('OK');
    expect([answer['out_devid'], look(device)]).toEqual([1, 'OK']);
  });

  it('writes to what its address space maps, and reaches the others that are attached to it', () => {
    const iommu = openIommu();
    const [one, other] = [openDevice(0), openDevice(1)];
    expect([alloc(iommu), bind(one, iommu), bind(other, iommu, 1)]).toEqual(['OK', 'OK', 'OK']);
    expect(nodes.reachOf(0)).toBeUndefined();
    expect([attach(one, 1), attach(other, 1, 1)]).toEqual(['OK', 'OK']);
    expect(nodes.reachOf(0)).toMatchObject({ isLogging: false, container: nodes.reachOf(1)?.container });
    expect(
      nodes
        .reachOf(0)
        ?.peers()
        .map(({ name }) => name),
    ).toEqual(['0000:91:00.0']);
    close(other);
    expect([nodes.reachOf(0)?.isOpen(), nodes.reachOf(1)?.isOpen(), nodes.reachOf(0)?.peers()]).toEqual([
      true,
      false,
      [],
    ]);
    const none = nodes.iommufds.deviceIoctl(
      turnOf(
        selfCall(arch.syscalls.ioctl, [
          one,
          VFIO_DEVICE_DETACH_IOMMUFD_PT,
          memory.put(vfio_device_detach_iommufd_pt.encode({ argsz: 8 })),
        ]),
      ),
      VFIO_DEVICE_DETACH_IOMMUFD_PT,
      0,
    );
    expect([none, nodes.reachOf(0)]).toEqual([0, undefined]);
  });
});

describe('/dev/iommu', () => {
  it('is a context of its own each time, of which the oldest without a device makes room', () => {
    const kept = openIommu();
    const device = openDevice();
    expect(bind(device, kept)).toBe('OK');
    const old = openIommu();
    expect(alloc(old)).toBe('OK');
    const map = { flags: FIXED, ioas_id: 1, length: PAGE, user_va: PAGE };
    expect(onIommu(old, abi.IOMMU_IOAS_MAP, abi.iommu_ioas_map, map)).toBe('OK');
    for (let n = 0; n < 30; n += 1) openIommu();
    expect(nodes.whose(inodeOfOwn(old))).toEqual({ kind: 'iommufd', inode: inodeOfOwn(old) });
    openIommu();
    expect(nodes.whose(inodeOfOwn(old))).toBeUndefined();
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS);
    expect(look(device)).toBe('OK');
  });

  it('keeps as much as fits, and is the same to a successor', () => {
    const iommu = openIommu();
    for (let n = 0; n < 128; n += 1) expect(alloc(iommu)).toBe('OK');
    expect(alloc(iommu)).toBe('ENOMEM');
    const ranges = Array.from({ length: 129 }, (_, n) => ({
      start: 2n ** 63n + BigInt(2 * n) * PAGE,
      last: 2n ** 63n + BigInt(2 * n + 1) * PAGE,
    }));
    const at = new GuardedMemory();
    for (const [n, range] of ranges.entries()) abi.iommu_iova_range.encode(range, at.bytes, 16 * n);
    const allow = (num_iovas: number): string =>
      onIommu(iommu, abi.IOMMU_IOAS_ALLOW_IOVAS, abi.iommu_ioas_allow_iovas, {
        ioas_id: 128,
        num_iovas,
        allowed_iovas: BigInt(at.address),
      });
    expect([allow(129), allow(128), allow(128)]).toEqual(['ENOMEM', 'OK', 'OK']);
    for (let n = 0; n < 31; n += 1) openIommu();
    for (let n = 0; n < 64; n += 1) nodes.openContainer(turnOf(selfCall(257, [])), true);
    commit();
    nodes = nodesOf(journal);
    expect(onIommu(iommu, abi.IOMMU_DESTROY, abi.iommu_destroy, { id: 128 })).toBe('OK');
    expect(alloc(iommu)).toBe('OK');
    expect(answer['out_ioas_id']).toBe(128);
  });

  it('maps once, and at the same place, if a request is served again', () => {
    const iommu = openIommu();
    alloc(iommu);
    alloc(iommu);
    commit();
    const map = (iova: bigint, flags: number, id: bigint): string =>
      onIommu(
        iommu,
        abi.IOMMU_IOAS_MAP,
        abi.iommu_ioas_map,
        { flags, ioas_id: 1, length: PAGE, user_va: PAGE, iova },
        id,
      );
    const copy = (flags: number, id: bigint): string =>
      onIommu(
        iommu,
        abi.IOMMU_IOAS_COPY,
        abi.iommu_ioas_copy,
        { flags, dst_ioas_id: 2, src_ioas_id: 1, length: 2n * PAGE, src_iova: PAGE, dst_iova: 8n * PAGE },
        id,
      );
    const unmap = (id: bigint): string =>
      onIommu(iommu, abi.IOMMU_IOAS_UNMAP, abi.iommu_ioas_unmap, { ioas_id: 1, iova: 0n, length: 64n * PAGE }, id);
    const twice = (ask: () => string): unknown[] => {
      const first = [ask(), answer];
      nodes = nodesOf(journal); // without a commit
      expect([ask(), answer]).toEqual(first);
      return first;
    };
    const anywhere = FIXED & ~abi.IOMMU_IOAS_MAP_FIXED_IOVA;
    expect(twice(() => map(0n, anywhere, 10n))).toEqual(['OK', expect.objectContaining({ iova: PAGE })]);
    expect(twice(() => map(2n * PAGE, FIXED, 11n))[0]).toBe('OK');
    expect(map(2n * PAGE, FIXED, 12n)).toBe('EEXIST');
    expect(twice(() => copy(FIXED, 13n))[0]).toBe('OK');
    expect(twice(() => copy(anywhere, 14n))).toEqual(['OK', expect.objectContaining({ dst_iova: PAGE })]);
    expect(nodes.mappings.available).toBe(MAX_MAPPINGS - 6);
    expect(twice(() => unmap(15n))).toEqual(['OK', expect.objectContaining({ length: 2n * PAGE })]);
    expect(unmap(16n)).toBe('ENOENT');
  });

  it('has memory of the process that asks, and no BAR that is mapped there', () => {
    const iommu = openIommu();
    alloc(iommu);
    const ask = (address: number, length = PAGE): string =>
      onIommu(iommu, abi.IOMMU_IOAS_MAP, abi.iommu_ioas_map, {
        flags: FIXED,
        ioas_id: 1,
        length,
        user_va: BigInt(address),
        iova: BigInt(address),
      });
    const [device, other] = [devices[1]?.driver.files.device ?? -1, devices[1]?.driver.files.group ?? -1];
    const { address: elsewhere } = mapSharedMemory(other, 4096);
    expect(ask(elsewhere)).toBe('OK');
    withSharedMemory(device, 4096, 0, (bytes) => {
      const bar = addressOf(bytes);
      expect([ask(bar), ask(bar - 4096, 2n * PAGE), ask(bar, 2n * PAGE)]).toEqual(['EFAULT', 'EFAULT', 'EFAULT']);
      expect([ask(bar - 4096), ask(bar + 4096)]).toEqual(['OK', 'OK']);
    });
  });
});
