import { beforeEach, describe, expect, it } from 'vitest';
import * as abi from '../../../src/abi/iommufd.ts';
import type { Struct, Fields, Values } from '../../../src/abi/struct.ts';
import { VFIO_API_VERSION, VFIO_GET_API_VERSION, VFIO_IOMMU_DIRTY_PAGES } from '../../../src/abi/vfio.ts';
import { DmaMappings } from '../../../src/vfio/server/dma-mappings.ts';
import { MAPPING_STRIDE } from '../../../src/vfio/server/mapping.ts';
import { attach, detach } from '../../../src/vfio/server/hwpt-requests.ts';
import { iommufdRequest } from '../../../src/vfio/server/iommufd-requests.ts';
import {
  keyOf,
  type BoundDevice,
  type IommufdHost,
  type IommufdState,
} from '../../../src/vfio/server/iommufd-state.ts';
import { WINDOW_LOG_SIZE, WindowLog } from '../../../src/vfio/server/window-log.ts';
import { failure, outcome } from '../../support/errno.ts';
import { BAD_ADDRESS, FILLER, UserMemory } from '../../support/user-memory.ts';

const PAGE = 4096n;
const LAST = 2n ** 48n - 1n;
const U64 = 2n ** 64n;
const FIXED = abi.IOMMU_IOAS_MAP_FIXED_IOVA | abi.IOMMU_IOAS_MAP_READABLE | abi.IOMMU_IOAS_MAP_WRITEABLE;

const memory = new UserMemory();
let context: IommufdState;
let host: { -readonly [K in keyof IommufdHost]: IommufdHost[K] };
let logs: WindowLog[];
let calls = 0n;

beforeEach(() => {
  context = { inode: 5, byProcess: false, vfioIoas: 0, objects: [] };
  logs = [];
  host = {
    pageSize: PAGE,
    mappings: new DmaMappings(new Uint8Array(64 * MAPPING_STRIDE)),
    mapsFiles: true,
    checkRoom: () => {},
    mapper: () => ({ process: 77n, program: 78n }),
    hasBar: () => false,
    mayAccount: () => true,
    fileOf: (fd) => {
      if (fd !== 9) throw failure('EBADF', 'ERR_TARGET');
      return { process: 77n, program: 99n, file: 10, size: 8n * PAGE, writable: false };
    },
    logs: () => logs,
  };
});

/** An ioctl with a struct that lies at the end of accessible memory; its fields afterwards are in `answer`. */
function ask<F extends Fields>(
  command: number,
  struct: Struct<F>,
  fields: Partial<Values<F>>,
  room = struct.size,
): string {
  const bytes = new Uint8Array(Math.max(room, struct.size));
  struct.encode({ size: struct.size, ...fields }, bytes);
  const at = memory.put(bytes, room);
  const result = outcome(() => iommufdRequest(memory.argument(at, (calls += 1n)), command, context, host));
  answer = room >= struct.size ? struct.decode(memory.end(room)) : {};
  return result;
}
let answer: Readonly<Record<string, number | bigint>> = {};

const alloc = (flags = 0): string => ask(abi.IOMMU_IOAS_ALLOC, abi.iommu_ioas_alloc, { flags });
const destroy = (id: number): string => ask(abi.IOMMU_DESTROY, abi.iommu_destroy, { id });
const map = (fields: Partial<Values<typeof abi.iommu_ioas_map.fields>>): string =>
  ask(abi.IOMMU_IOAS_MAP, abi.iommu_ioas_map, {
    flags: FIXED,
    ioas_id: 1,
    length: PAGE,
    user_va: 64n * PAGE,
    ...fields,
  });
const unmap = (iova: bigint, length: bigint, ioas_id = 1): string =>
  ask(abi.IOMMU_IOAS_UNMAP, abi.iommu_ioas_unmap, { ioas_id, iova, length });
const copy = (fields: Partial<Values<typeof abi.iommu_ioas_copy.fields>>): string =>
  ask(abi.IOMMU_IOAS_COPY, abi.iommu_ioas_copy, {
    flags: FIXED,
    src_ioas_id: 1,
    dst_ioas_id: 2,
    length: PAGE,
    ...fields,
  });
const hwpt = (fields: Partial<Values<typeof abi.iommu_hwpt_alloc.fields>>): string =>
  ask(abi.IOMMU_HWPT_ALLOC, abi.iommu_hwpt_alloc, { pt_id: 1, ...fields });

/** A device that is bound; its number is the next. */
function bind(place = 0): BoundDevice {
  const id = Math.max(0, ...context.objects.map((object) => object.id)) + 1;
  const device: BoundDevice = { kind: 'device', id, place, hwpt: 0 };
  context.objects.push(device);
  return device;
}

const attached = (device: BoundDevice, table: number): string =>
  outcome(() => attach(context, device, table, host, () => {}));

describe('a struct of /dev/iommu', () => {
  it('may be shorter or longer than ours, as long as what nobody understands is zeros', () => {
    alloc();
    const one = bind();
    const sizes: [size: number, errno: string][] = [
      [0, 'EINVAL'],
      [23, 'EINVAL'],
      [24, 'OK'],
      [40, 'OK'],
      [48, 'OK'],
      [64, 'OK'],
      [2 ** 20, 'E2BIG'],
    ];
    for (const [size, errno] of sizes) {
      const room = Math.min(64, Math.max(4, size));
      expect(ask(abi.IOMMU_HWPT_ALLOC, abi.iommu_hwpt_alloc, { size, dev_id: one.id, pt_id: 1 }, room)).toBe(errno);
    }
    const long = new Uint8Array(64);
    abi.iommu_hwpt_alloc.encode({ size: 64, dev_id: one.id, pt_id: 1 }, long);
    long[63] = 1;
    const at = memory.put(long);
    expect(outcome(() => iommufdRequest(memory.argument(at), abi.IOMMU_HWPT_ALLOC, context, host))).toBe('E2BIG');
    for (const room of [3, 8, 11]) {
      expect(ask(abi.IOMMU_IOAS_ALLOC, abi.iommu_ioas_alloc, {}, room), `${room} bytes`).toBe('EFAULT');
    }
  });

  it('is none of an ioctl that there is not', () => {
    for (const command of [0x3b7f, 0x3b90, 0x3b94, VFIO_IOMMU_DIRTY_PAGES]) {
      expect(outcome(() => iommufdRequest(memory.argument(0), command, context, host))).toBe('ENOTTY');
    }
    for (const command of [abi.IOMMU_HWPT_INVALIDATE, abi.IOMMU_FAULT_QUEUE_ALLOC]) {
      expect(outcome(() => iommufdRequest(memory.argument(0), command, context, host))).toBe('EOPNOTSUPP');
    }
    expect(iommufdRequest(memory.argument(0), VFIO_GET_API_VERSION, context, host)).toBe(VFIO_API_VERSION);
  });
});

describe('objects', () => {
  it('have the lowest numbers that are free, and go one by one', () => {
    for (const id of [1, 2, 3]) {
      expect(alloc()).toBe('OK');
      expect(answer['out_ioas_id']).toBe(id);
    }
    expect(alloc(1)).toBe('EOPNOTSUPP');
    expect([destroy(2), destroy(2), destroy(0), destroy(99)]).toEqual(['OK', 'ENOENT', 'ENOENT', 'ENOENT']);
    alloc();
    expect(answer['out_ioas_id']).toBe(2);
    host.checkRoom = () => {
      throw failure('ENOMEM', 'ERR_TARGET');
    };
    expect(alloc()).toBe('ENOMEM');
  });

  it('are kept by what uses them', () => {
    alloc();
    const device = bind();
    expect(hwpt({ dev_id: device.id })).toBe('OK');
    const table = Number(answer['out_hwpt_id']);
    expect(attached(device, table)).toBe('OK');
    expect([destroy(1), destroy(device.id), destroy(table)]).toEqual(['EBUSY', 'EBUSY', 'EBUSY']);
    detach(context, device);
    expect([destroy(1), destroy(table), destroy(1)]).toEqual(['EBUSY', 'OK', 'OK']);
  });

  it('take their mappings with them', () => {
    alloc();
    expect(map({})).toBe('OK');
    expect(destroy(1)).toBe('OK');
    alloc();
    expect(map({})).toBe('OK');
    expect(host.mappings.available).toBe(65_534);
  });
});

describe('mappings', () => {
  beforeEach(() => {
    alloc();
    alloc();
  });

  it('lie where they are wanted, as often as there is room', () => {
    expect(map({ iova: 4n * PAGE, length: 2n * PAGE })).toBe('OK');
    expect(host.mappings.at(keyOf(context, 1), 5n * PAGE)).toMatchObject({
      process: 77n,
      program: 78n,
      vaddr: 64n * PAGE,
      writable: true,
    });
    const refused: [Partial<Values<typeof abi.iommu_ioas_map.fields>>, string][] = [
      [{ iova: 5n * PAGE }, 'EEXIST'],
      [{ iova: 3n * PAGE, length: 2n * PAGE }, 'EEXIST'],
      [{ ioas_id: 3 }, 'ENOENT'],
      [{ flags: FIXED | 8 }, 'EOPNOTSUPP'],
      [{ reserved: 1 }, 'EOPNOTSUPP'],
      [{ flags: abi.IOMMU_IOAS_MAP_FIXED_IOVA }, 'EINVAL'],
      [{ length: 0n }, 'EINVAL'],
      [{ length: U64 - 1n }, 'EOVERFLOW'],
      [{ iova: U64 - 1n }, 'EOVERFLOW'],
      [{ iova: U64 - PAGE, length: 2n * PAGE }, 'EOVERFLOW'],
      [{ user_va: U64 - PAGE, length: 2n * PAGE }, 'EOVERFLOW'],
    ];
    for (const [fields, errno] of refused) expect(map(fields), JSON.stringify(fields, text)).toBe(errno);
    expect(map({ iova: 1n, length: 5n, user_va: 3n }), 'no page table, no pages').toBe('OK');
    expect(map({ ioas_id: 2, iova: 4n * PAGE })).toBe('OK');
    expect(map({ ioas_id: 2, iova: U64 - PAGE })).toBe('OK');
  });

  it('lie where there is room, if nobody says where', () => {
    const anywhere = (fields: Partial<Values<typeof abi.iommu_ioas_map.fields>> = {}): bigint | string => {
      const result = map({ flags: FIXED & ~abi.IOMMU_IOAS_MAP_FIXED_IOVA, ...fields });
      return result === 'OK' ? (answer['iova'] as bigint) : result;
    };
    expect([anywhere(), anywhere(), anywhere({ length: 2n * PAGE })]).toEqual([PAGE, 2n * PAGE, 4n * PAGE]);
    expect(anywhere(), 'between them').toBe(3n * PAGE);
    expect(anywhere({ user_va: 64n * PAGE + 8n, length: 8n })).toBe(6n * PAGE + 8n);
    const allow = (ranges: [bigint, bigint][], at?: bigint): string => {
      for (const [n, [start, last]] of ranges.entries())
        abi.iommu_iova_range.encode({ start, last }, memory.bytes, 16 * n);
      const kept = memory.bytes.slice(0, 16 * ranges.length);
      const bytes = abi.iommu_ioas_allow_iovas.encode({
        size: 24,
        ioas_id: 1,
        num_iovas: ranges.length,
        allowed_iovas: at ?? BigInt(memory.address),
      });
      const where = memory.put(bytes);
      memory.bytes.set(kept);
      return outcome(() => iommufdRequest(memory.argument(where), abi.IOMMU_IOAS_ALLOW_IOVAS, context, host));
    };
    expect(allow([[100n * PAGE, 102n * PAGE - 1n]])).toBe('OK');
    expect([anywhere(), anywhere(), anywhere()]).toEqual([100n * PAGE, 101n * PAGE, 'ENOSPC']);
    expect(allow([[5n, 5n]])).toBe('EINVAL');
    expect(
      allow([
        [0n, 9n],
        [9n, 20n],
      ]),
    ).toBe('EINVAL');
    expect(allow([[0n, 9n]], BAD_ADDRESS)).toBe('EFAULT');
    expect(allow([])).toBe('OK');
    expect(anywhere()).toBe(7n * PAGE);
  });

  it('go whole, and at least one', () => {
    for (const page of [0n, 2n, 6n]) expect(map({ iova: page * PAGE, length: 2n * PAGE })).toBe('OK');
    expect(unmap(0n, PAGE)).toBe('ENOENT');
    expect(unmap(PAGE, 3n * PAGE)).toBe('ENOENT');
    expect(unmap(4n * PAGE, PAGE), 'nothing there').toBe('ENOENT');
    expect(unmap(0n, PAGE, 9)).toBe('ENOENT');
    expect([unmap(0n, 0n), unmap(PAGE, U64 - 1n), unmap(U64 - PAGE, 2n * PAGE)]).toEqual([
      'EINVAL',
      'EOVERFLOW',
      'EOVERFLOW',
    ]);
    expect(unmap(0n, 5n * PAGE)).toBe('OK');
    expect(answer['length']).toBe(4n * PAGE);
    expect(unmap(0n, U64 - 1n)).toBe('OK');
    expect(answer['length']).toBe(2n * PAGE);
    expect(unmap(0n, U64 - 1n), 'all of none').toBe('OK');
    expect(answer['length']).toBe(0n);
  });

  it('are copied with the memory that is behind them', () => {
    expect(map({ iova: 0n, length: 2n * PAGE, user_va: 100n * PAGE })).toBe('OK');
    expect(map({ iova: 2n * PAGE, length: 2n * PAGE, user_va: 200n * PAGE, flags: FIXED & ~2 })).toBe('OK');
    expect(copy({ src_iova: PAGE, length: 2n * PAGE, dst_iova: 16n * PAGE }), 'to write what is to be read').toBe(
      'EPERM',
    );
    expect(copy({ src_iova: PAGE, length: 2n * PAGE, dst_iova: 16n * PAGE, flags: FIXED & ~2 })).toBe('OK');
    const to = keyOf(context, 2);
    expect(host.mappings.at(to, 16n * PAGE)).toMatchObject({ vaddr: 101n * PAGE, size: PAGE, writable: false });
    expect(host.mappings.at(to, 17n * PAGE)).toMatchObject({ vaddr: 200n * PAGE, size: PAGE });
    expect(host.mappings.at(keyOf(context, 1), 3n * PAGE)).toMatchObject({ vaddr: 200n * PAGE, size: 2n * PAGE });
    expect(copy({ src_iova: 3n * PAGE, length: 2n * PAGE })).toBe('ENOENT');
    expect(copy({ src_iova: 0n, dst_iova: 16n * PAGE })).toBe('EEXIST');
    expect([copy({ length: 0n }), copy({ src_ioas_id: 9 }), copy({ dst_ioas_id: 9 }), copy({ flags: 64 })]).toEqual([
      'EINVAL',
      'ENOENT',
      'ENOENT',
      'EOPNOTSUPP',
    ]);
  });

  it('may be of a file, with a later kernel', () => {
    const file = (fields: Partial<Values<typeof abi.iommu_ioas_map_file.fields>>): string =>
      ask(abi.IOMMU_IOAS_MAP_FILE, abi.iommu_ioas_map_file, {
        flags: FIXED & ~2,
        ioas_id: 1,
        fd: 9,
        length: PAGE,
        ...fields,
      });
    expect(file({ start: 7n * PAGE, iova: PAGE })).toBe('OK');
    expect(host.mappings.at(keyOf(context, 1), PAGE)).toMatchObject({
      process: 77n,
      program: 99n,
      file: 10,
      vaddr: 7n * PAGE,
    });
    expect(file({ fd: 8 })).toBe('EBADF');
    expect(file({ start: 8n * PAGE })).toBe('EINVAL');
    expect(file({ flags: FIXED }), 'which is open to be read').toBe('EPERM');
    host.mapsFiles = false;
    expect(file({})).toBe('ENOTTY');
  });
});

describe('a page table', () => {
  let device: BoundDevice;

  beforeEach(() => {
    alloc();
    device = bind();
  });

  const ranges = (num_iovas: number): string => {
    memory.bytes.fill(FILLER);
    return ask(abi.IOMMU_IOAS_IOVA_RANGES, abi.iommu_ioas_iova_ranges, {
      ioas_id: 1,
      num_iovas,
      allowed_iovas: BigInt(memory.address),
    });
  };

  it('narrows what can be mapped', () => {
    expect(ranges(0)).toBe('EMSGSIZE');
    expect([answer['num_iovas'], answer['out_iova_alignment']]).toEqual([1, 1n]);
    expect(ranges(3)).toBe('OK');
    expect(abi.iommu_iova_range.decode(memory.bytes)).toEqual({ start: 0n, last: U64 - 1n });
    expect(attached(device, 1)).toBe('OK');
    expect(ranges(3)).toBe('OK');
    expect(answer['out_iova_alignment']).toBe(PAGE);
    expect(abi.iommu_iova_range.decode(memory.bytes)).toEqual({ start: 0n, last: LAST });
    expect([map({ iova: LAST + 1n }), map({ iova: 8n }), map({ length: 8n }), map({ user_va: 8n })]).toEqual(
      Array.from({ length: 4 }, () => 'EINVAL'),
    );
    expect(map({ iova: LAST + 1n - PAGE })).toBe('OK');
    detach(context, device);
    expect(map({ iova: LAST + 1n })).toBe('OK');
    expect(attached(device, 1), 'what is mapped is beyond').toBe('EADDRINUSE');
    expect(unmap(LAST + 1n, PAGE)).toBe('OK');
    expect(map({ iova: 1n, length: 1n })).toBe('OK');
    expect(attached(device, 1), 'what is mapped is no page').toBe('EADDRINUSE');
    expect(hwpt({ dev_id: device.id })).toBe('EADDRINUSE');
  });

  it('is made for those that attach to an address space, and goes with the last', () => {
    const other = bind(1);
    expect([attached(device, 1), attached(other, 1)]).toEqual(['OK', 'OK']);
    expect(other.hwpt).toBe(device.hwpt);
    alloc();
    const second = Number(answer['out_ioas_id']);
    expect(attached(other, second), 'it leaves the first').toBe('OK');
    const gone = device.hwpt;
    detach(context, device);
    expect(destroy(gone)).toBe('ENOENT');
    expect(destroy(1)).toBe('OK');
    expect([attached(device, 99), attached(device, other.id)]).toEqual(['ENOENT', 'EINVAL']);
  });

  it('is of one stage, for a device and an address space that there are', () => {
    expect(hwpt({ dev_id: 99 })).toBe('ENOENT');
    expect(hwpt({ dev_id: 1 }), 'an address space').toBe('ENOENT');
    expect(hwpt({ dev_id: device.id, pt_id: 99 })).toBe('EINVAL');
    expect(hwpt({ dev_id: device.id, pt_id: device.id })).toBe('EINVAL');
    expect(hwpt({ dev_id: device.id, data_len: 8 })).toBe('EINVAL');
    for (const wrong of [
      { reserved: 1 },
      { reserved2: 1 },
      { flags: 1 },
      { flags: 4 },
      { data_type: 1, data_len: 8 },
    ]) {
      expect(hwpt({ dev_id: device.id, ...wrong }), JSON.stringify(wrong)).toBe('EOPNOTSUPP');
    }
    expect(hwpt({ dev_id: device.id })).toBe('OK');
    expect(hwpt({ dev_id: device.id, pt_id: Number(answer['out_hwpt_id']) }), 'a stage on a stage').toBe('EOPNOTSUPP');
  });

  it('is told of by its IOMMU, which has no type and logs dirty pages', () => {
    const info = (fields: Partial<Values<typeof abi.iommu_hw_info.fields>>): string =>
      ask(abi.IOMMU_GET_HW_INFO, abi.iommu_hw_info, { dev_id: device.id, ...fields });
    expect(info({ data_len: 8, data_uptr: BigInt(memory.address) })).toBe('OK');
    expect(answer).toMatchObject({ data_len: 0, out_data_type: 0, out_capabilities: 1n });
    expect(memory.bytes.subarray(0, 9)).toBeBytes(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, FILLER));
    expect([info({ dev_id: 1 }), info({ flags: 1 }), info({ data_len: 8, data_uptr: BAD_ADDRESS })]).toEqual([
      'ENOENT',
      'EOPNOTSUPP',
      'EFAULT',
    ]);
  });

  describe('that logs', () => {
    let table: number;
    const track = (flags: number, hwpt_id = table): string =>
      ask(abi.IOMMU_HWPT_SET_DIRTY_TRACKING, abi.iommu_hwpt_set_dirty_tracking, { flags, hwpt_id });
    const bitmap = (fields: Partial<Values<typeof abi.iommu_hwpt_get_dirty_bitmap.fields>> = {}): string =>
      ask(abi.IOMMU_HWPT_GET_DIRTY_BITMAP, abi.iommu_hwpt_get_dirty_bitmap, {
        hwpt_id: table,
        length: 64n * PAGE,
        page_size: PAGE,
        data: BigInt(memory.address),
        ...fields,
      });

    beforeEach(() => {
      logs = [new WindowLog(new Uint8Array(WINDOW_LOG_SIZE), { iova: 16 * 4096, pages: 64 })];
      expect(hwpt({ dev_id: device.id, flags: abi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING })).toBe('OK');
      table = Number(answer['out_hwpt_id']);
      attached(device, table);
      expect(map({ iova: 0n, length: 64n * PAGE })).toBe('OK');
    });

    it('tells what was written to since it was asked, and leaves the bits that are set', () => {
      const [log] = logs;
      expect(bitmap(), 'it does not yet').toBe('EINVAL');
      log?.note(0);
      expect(track(1)).toBe('OK');
      log?.note(3);
      memory.bytes.fill(0);
      expect(bitmap({ flags: 1 })).toBe('OK');
      expect(bitmap()).toBe('OK');
      // UserMemory fills with FILLER, of which these bits are left
      expect(memory.bytes.subarray(0, 4)).toBeBytes(Uint8Array.of(FILLER, FILLER, FILLER | 8, FILLER));
      expect(bitmap({ length: 64n * PAGE, page_size: 8n * PAGE })).toBe('OK');
      expect(memory.bytes[0], 'nothing new').toBe(FILLER);
      log?.note(5);
      expect(bitmap({ data: BAD_ADDRESS })).toBe('EFAULT');
      expect(bitmap({ page_size: 8n * PAGE })).toBe('OK');
      expect(memory.bytes[0]).toBe(FILLER | 4);
      expect(track(0)).toBe('OK');
      expect(bitmap()).toBe('EINVAL');
    });

    it('has nothing dirty where nothing is mapped', () => {
      track(1);
      memory.bytes.fill(0);
      expect(bitmap({ iova: 64n * PAGE })).toBe('OK');
      expect(memory.bytes.subarray(0, 8)).toBeBytes(new Uint8Array(8).fill(FILLER));
    });

    it('takes whole pages of a range that is mapped', () => {
      track(1);
      const refused: [Parameters<typeof bitmap>[0], string][] = [
        [{ hwpt_id: 1 }, 'ENOENT'],
        [{ flags: 2 }, 'EOPNOTSUPP'],
        [{ reserved: 1 }, 'EOPNOTSUPP'],
        [{ length: 0n }, 'EINVAL'],
        [{ length: PAGE + 8n }, 'EINVAL'],
        [{ iova: 8n }, 'EINVAL'],
        [{ page_size: 0n }, 'EINVAL'],
        [{ page_size: 3n * PAGE }, 'EINVAL'],
        [{ iova: PAGE, page_size: 2n * PAGE, length: 2n * PAGE }, 'EINVAL'],
        [{ length: 65n * PAGE }, 'EINVAL'],
        [{ iova: U64 - PAGE, length: 2n * PAGE }, 'EOVERFLOW'],
      ];
      for (const [fields, errno] of refused) expect(bitmap(fields), JSON.stringify(fields, text)).toBe(errno);
    });

    it('was made to: others do not', () => {
      expect(hwpt({ dev_id: device.id })).toBe('OK');
      const plain = Number(answer['out_hwpt_id']);
      expect([track(1, plain), bitmap({ hwpt_id: plain }), track(2), track(1, 1)]).toEqual([
        'EOPNOTSUPP',
        'EOPNOTSUPP',
        'EOPNOTSUPP',
        'ENOENT',
      ]);
    });
  });
});

describe('options', () => {
  const option = (fields: Partial<Values<typeof abi.iommu_option.fields>>): string =>
    ask(abi.IOMMU_OPTION, abi.iommu_option, fields);
  const { IOMMU_OPTION_HUGE_PAGES: HUGE, IOMMU_OPTION_OP_GET: GET } = abi;

  it('say how memory is accounted, as long as there is nothing to account', () => {
    expect([option({ val64: 1n }), option({ op: GET })]).toEqual(['OK', 'OK']);
    expect(answer['val64']).toBe(1n);
    expect([option({ val64: 2n }), option({ object_id: 1 }), option({ op: 2 }), option({ option_id: 2 })]).toEqual([
      'EINVAL',
      'EOPNOTSUPP',
      'EOPNOTSUPP',
      'EOPNOTSUPP',
    ]);
    alloc();
    expect(option({ val64: 0n })).toBe('EBUSY');
    host.mayAccount = () => false;
    expect(option({ val64: 0n })).toBe('EPERM');
  });

  it('say whether a page may be mapped in part', () => {
    alloc();
    const huge = (fields: Parameters<typeof option>[0]): string => option({ option_id: HUGE, object_id: 1, ...fields });
    expect(huge({ op: GET })).toBe('OK');
    expect(answer['val64']).toBe(1n);
    expect(map({ iova: 1n, length: 1n })).toBe('OK');
    expect(huge({ val64: 0n })).toBe('EADDRINUSE');
    unmap(1n, 1n);
    expect(huge({ val64: 0n })).toBe('OK');
    expect(map({ iova: 1n, length: 1n })).toBe('EINVAL');
    expect([huge({ object_id: 9 }), huge({ val64: 3n })]).toEqual(['ENOENT', 'EINVAL']);
    expect(huge({ val64: 1n })).toBe('OK');
    const device = bind();
    attached(device, 1);
    expect(map({})).toBe('OK');
    expect(huge({ val64: 0n })).toBe('EINVAL');
  });

  it('name an address space for containers, which nobody has', () => {
    const compat = (op: number, ioas_id = 0): string => ask(abi.IOMMU_VFIO_IOAS, abi.iommu_vfio_ioas, { op, ioas_id });
    expect([compat(0), compat(1, 7)]).toEqual(['ENODEV', 'ENOENT']);
    alloc();
    expect([compat(1, 1), compat(0)]).toEqual(['OK', 'OK']);
    expect(answer['ioas_id']).toBe(1);
    expect([compat(2), compat(0), compat(3)]).toEqual(['OK', 'ENODEV', 'EOPNOTSUPP']);
  });
});

function text(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
