import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_GET_INFO,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_migration,
} from '../../../src/abi/vfio.ts';
import type { ContainerHost, ContainerState } from '../../../src/vfio/server/container.ts';
import { containerRequest } from '../../../src/vfio/server/container-requests.ts';
import { DmaMappings } from '../../../src/vfio/server/dma-mappings.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../../src/vfio/server/mapping.ts';
import { WINDOW_LOG_SIZE, WindowLog } from '../../../src/vfio/server/window-log.ts';
import { outcome } from '../../support/errno.ts';
import { capabilities } from '../../support/capabilities.ts';
import { BAD_ADDRESS, FILLER, UserMemory } from '../../support/user-memory.ts';

/** The same flag of either. */
const VADDR = VFIO_DMA_MAP_FLAG_VADDR;
const READ_WRITE = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
const PAGE = 4096n;
const MiB = 1024n * 1024n;
const LAST = 2n ** 48n - 1n;

const memory = new UserMemory();
let container: ContainerState;
let calls = 0n;
let host: ContainerHost & { mappings: DmaMappings; groups: boolean };
let logs: WindowLog[];

beforeEach(() => {
  container = { inode: 5, iommu: VFIO_TYPE1v2_IOMMU, logging: false };
  const mappings = new DmaMappings(new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE));
  logs = [];
  host = {
    pageSize: 4096n,
    mappings,
    groups: true,
    hasGroup: () => host.groups,
    mapper: () => ({ process: 77n, program: 78n }),
    logs: () => logs,
  };
});

/** The errno, or `OK`, of an ioctl whose argument is a struct at the end of accessible memory. */
function ioctl(command: number, argument: Uint8Array, room = argument.length): string {
  const at = memory.put(argument, room);
  return outcome(() => containerRequest(memory.argument(at, (calls += 1n)), command, container, host));
}

/** The errno, or `OK`, of an ioctl with a number or an address. */
function plain(command: number, argument: number | bigint = 0): string {
  return outcome(() => containerRequest(memory.argument(argument), command, container, host));
}

function result(command: number, argument: number | bigint = 0): number {
  return containerRequest(memory.argument(argument), command, container, host);
}

describe('a container', () => {
  it('says what it is before it has an IOMMU, and nothing else', () => {
    container.iommu = 0;
    expect(result(VFIO_GET_API_VERSION)).toBe(VFIO_API_VERSION);
    const extensions = [...Array(20).keys(), VFIO_TYPE1_IOMMU + 2 ** 32, -1].filter(
      (type) => result(VFIO_CHECK_EXTENSION, type) === 1,
    );
    expect(extensions.toSorted((a, b) => a - b)).toEqual(
      [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL].toSorted((a, b) => a - b),
    );
    container.iommu = VFIO_TYPE1_IOMMU;
    expect(result(VFIO_CHECK_EXTENSION, VFIO_UPDATE_VADDR), 'once it has one').toBe(1);
    container.iommu = 0;
    for (const command of [
      VFIO_IOMMU_GET_INFO,
      VFIO_IOMMU_MAP_DMA,
      VFIO_IOMMU_UNMAP_DMA,
      VFIO_IOMMU_DIRTY_PAGES,
      0x3b64 + 25,
    ]) {
      expect(plain(command, BAD_ADDRESS)).toBe('EINVAL');
    }
  });

  it('takes an IOMMU once, with a group, of a type that it has', () => {
    container.iommu = 0;
    host.groups = false;
    expect(plain(VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe('EINVAL');
    host.groups = true;
    for (const type of [0, 2, 8, 99, VFIO_TYPE1v2_IOMMU + 2 ** 32, -1])
      expect(plain(VFIO_SET_IOMMU, type)).toBe('ENODEV');
    expect(container.iommu).toBe(0);
    expect(plain(VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU)).toBe('OK');
    expect(container.iommu).toBe(VFIO_TYPE1_IOMMU);
    expect(plain(VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).toBe('EINVAL');
  });

  it('has none of the other ioctls', () => {
    for (const command of [VFIO_DEVICE_GET_INFO, 0x3b64 + 15, 0x3b64 + 25]) expect(plain(command)).toBe('ENOTTY');
  });
});

describe('VFIO_IOMMU_GET_INFO', () => {
  const whole = 104;
  const caps = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;

  /** What a call with this argsz wrote. */
  function checkWritten(argsz: number): void {
    const bytes = memory.end(argsz);
    const written = argsz >= whole ? whole : Math.min(argsz, vfio_iommu_type1_info.size);
    expect(bytes.subarray(written).every((byte) => byte === FILLER)).toBe(true);
    const padded = new Uint8Array(Math.max(argsz, 24));
    padded.set(bytes);
    const info = vfio_iommu_type1_info.decode(padded);
    expect(info).toMatchObject({ argsz: Math.max(argsz, whole), flags: caps, iova_pgsizes: 0xffff_ffff_ffff_f000n });
    if (argsz < 24) return;
    expect(info.cap_offset).toBe(argsz < whole ? 0 : 24);
    if (argsz < whole) return;
    expect(capabilities(bytes, info.cap_offset).map(({ id, size }) => [id, size])).toEqual([
      [VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, 32],
      [VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 32],
      [VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, argsz - 88],
    ]);
  }

  it('writes what each argsz has room for', () => {
    for (let argsz = 0; argsz < 140; argsz += 1) {
      const answer = ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz }), Math.max(argsz, 16));
      expect(answer).toBe(argsz < 16 ? 'EINVAL' : 'OK');
      if (argsz >= 16) checkWritten(argsz);
    }
  });

  it('has in its chain what QEMU looks for', () => {
    host.mappings.map(5n, 0n, PAGE, 1n);
    ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz: whole }), whole);
    const bytes = memory.end(whole);
    const [migration, ranges, available] = capabilities(bytes, 24);
    const { pgsize_bitmap, max_dirty_bitmap_size } = vfio_iommu_type1_info_cap_migration.decode(bytes, migration?.at);
    expect([pgsize_bitmap, max_dirty_bitmap_size]).toEqual([PAGE, 256n * MiB]);
    const view = new DataView(bytes.buffer);
    expect(view.getUint32((ranges?.at ?? 0) + 8, true)).toBe(1);
    expect(view.getBigUint64((ranges?.at ?? 0) + 16, true)).toBe(0n);
    expect(view.getBigUint64((ranges?.at ?? 0) + 24, true)).toBe(LAST);
    expect(view.getUint32((available?.at ?? 0) + 8, true)).toBe(MAX_MAPPINGS - 1);
  });

  it('faults where there is no memory, to read or to write', () => {
    expect(plain(VFIO_IOMMU_GET_INFO, BAD_ADDRESS)).toBe('EFAULT');
    expect(plain(VFIO_IOMMU_GET_INFO, -1)).toBe('EFAULT');
    expect(ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz: 24 }), 15)).toBe('EFAULT');
    expect(ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz: 24 }), 16)).toBe('EFAULT');
    expect(ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz: 0xffff_ffff }), 24)).toBe('EFAULT');
  });
});

describe('VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA', () => {
  interface Range {
    readonly argsz?: number;
    readonly flags?: number;
    readonly iova?: bigint;
    readonly size?: bigint;
    readonly vaddr?: bigint;
  }
  const map = (fields: Range): string =>
    ioctl(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: READ_WRITE, size: PAGE, ...fields }));
  const unmap = (fields: Range): string =>
    ioctl(VFIO_IOMMU_UNMAP_DMA, vfio_iommu_type1_dma_unmap.encode({ argsz: 24, size: PAGE, ...fields }));
  const unmapped = (): bigint => vfio_iommu_type1_dma_unmap.decode(memory.end(24)).size;

  it('take whole pages of address space that exists', () => {
    const refused: Range[] = [
      { argsz: 31 },
      { argsz: 0 },
      { flags: 0 },
      { flags: 8 },
      { flags: READ_WRITE | VADDR },
      { flags: 0xffff_ffff },
      { size: 0n },
      { size: 1n },
      { size: PAGE + 8n },
      { iova: 8n },
      { vaddr: 1n },
      { iova: LAST + 1n },
      { iova: LAST + 1n - PAGE, size: 2n * PAGE },
      { size: 2n ** 64n - PAGE },
      { iova: 2n ** 64n - PAGE, size: 2n * PAGE },
      { vaddr: 2n ** 64n - PAGE, size: 2n * PAGE },
    ];
    for (const fields of refused)
      expect(
        map(fields),
        JSON.stringify(fields, (_, value: unknown) => String(value)),
      ).toBe('EINVAL');
    expect(host.mappings.available).toBe(MAX_MAPPINGS);
    expect(map({ argsz: 0xffff_ffff, vaddr: 2n ** 64n - PAGE })).toBe('OK');
    expect(map({ iova: LAST + 1n - PAGE, flags: VFIO_DMA_MAP_FLAG_READ })).toBe('OK');
    expect(map({ iova: PAGE, size: LAST + 1n - 2n * PAGE })).toBe('OK');
    expect(map({ iova: 5n * PAGE })).toBe('EEXIST');
    expect(host.mappings.at(5n, 0n)).toMatchObject({ process: 77n, vaddr: 2n ** 64n - PAGE, writable: true });
    expect(host.mappings.at(5n, LAST)).toMatchObject({ writable: false, readable: true });
    expect(plain(VFIO_IOMMU_MAP_DMA, BAD_ADDRESS)).toBe('EFAULT');
    expect(ioctl(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map.encode({ argsz: 32 }), 31)).toBe('EFAULT');
  });

  it('say how much was unmapped, and unmap nothing of a bad request', () => {
    expect(map({ size: 4n * PAGE })).toBe('OK');
    const refused: Range[] = [
      { argsz: 23 },
      { flags: 8 },
      { flags: VADDR | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP },
      { flags: VADDR | VFIO_DMA_UNMAP_FLAG_ALL },
      { flags: VADDR, size: PAGE },
      { flags: VFIO_DMA_UNMAP_FLAG_ALL },
      { flags: VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, size: 0n },
      { size: 0n },
      { size: PAGE - 1n },
      { iova: 1n },
      { iova: 2n ** 64n - PAGE, size: 2n * PAGE },
      { iova: 0n, size: PAGE },
      { iova: PAGE, size: PAGE },
      { iova: 3n * PAGE, size: 9n * PAGE },
      { flags: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, size: 4n * PAGE },
    ];
    for (const fields of refused)
      expect(
        unmap(fields),
        JSON.stringify(fields, (_, value: unknown) => String(value)),
      ).toBe('EINVAL');
    expect(unmap({ iova: 4n * PAGE, size: PAGE })).toBe('OK');
    expect(unmapped()).toBe(0n);
    expect(unmap({ size: 2n ** 64n - PAGE })).toBe('OK');
    expect(unmapped()).toBe(4n * PAGE);
    for (const page of [0n, 2n, 9n]) expect(map({ iova: page * PAGE })).toBe('OK');
    expect(unmap({ flags: VFIO_DMA_UNMAP_FLAG_ALL, size: 0n })).toBe('OK');
    expect(unmapped()).toBe(3n * PAGE);
    expect(plain(VFIO_IOMMU_UNMAP_DMA, BAD_ADDRESS)).toBe('EFAULT');
  });

  it('let memory go from one program to the next', () => {
    for (const page of [0n, 4n]) expect(map({ iova: page * PAGE, size: 2n * PAGE, vaddr: PAGE })).toBe('OK');
    expect(map({ flags: VADDR, size: 2n * PAGE }), 'it has an address').toBe('EINVAL');
    expect(unmap({ flags: VADDR | VFIO_DMA_UNMAP_FLAG_ALL, size: 0n })).toBe('OK');
    expect(unmapped()).toBe(4n * PAGE);
    expect(unmap({ flags: VADDR, size: 2n * PAGE }), 'it has none').toBe('EINVAL');
    expect(map({ iova: PAGE }), 'it is mapped').toBe('EEXIST');
    expect(map({ flags: VADDR, iova: 2n * PAGE })).toBe('ENOENT');
    expect(map({ flags: VADDR, iova: LAST + 1n })).toBe('ENOENT');
    expect(map({ flags: VADDR })).toBe('EINVAL');
    host.mapper = () => ({ process: 5n, program: 6n });
    expect(map({ flags: VADDR, size: 2n * PAGE, vaddr: 9n * PAGE })).toBe('OK');
    expect(host.mappings.at(5n, PAGE)).toMatchObject({ process: 5n, program: 6n, vaddr: 9n * PAGE, lost: false });
    expect(host.mappings.at(5n, 4n * PAGE)).toMatchObject({ process: 77n, program: 78n, vaddr: PAGE, lost: true });
    expect(unmap({ size: 8n * PAGE })).toBe('OK');
    expect(unmapped()).toBe(4n * PAGE);
  });

  it('say of a range that wraps what their kernel says', () => {
    const end = 2n ** 64n;
    for (const [tellsOverflow, errno] of [
      [false, 'EINVAL'],
      [true, 'EOVERFLOW'],
    ] as const) {
      host = { ...host, tellsOverflow };
      expect(map({ iova: end - PAGE, size: 2n * PAGE })).toBe(errno);
      expect(map({ vaddr: end - PAGE, size: 2n * PAGE })).toBe(errno);
      expect(map({ flags: 0, vaddr: end - PAGE, size: 2n * PAGE })).toBe(errno);
      expect(map({ iova: end - PAGE }), 'ends with the last').toBe('EINVAL');
      expect(unmap({ iova: end - PAGE, size: 2n * PAGE })).toBe(errno);
      expect(unmap({ iova: end - PAGE, size: PAGE + 1n }), 'are no whole pages').toBe('EINVAL');
      expect(unmap({ iova: end - PAGE })).toBe('OK');
    }
  });

  it('agree with a model of the address space', () => {
    const page = fc.bigInt(0n, 30n);
    const step = fc.tuple(fc.boolean(), page, fc.bigInt(1n, 12n));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        host.mappings = new DmaMappings(new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE));
        const owner = Array.from({ length: 64 }, () => 0);
        for (const [n, [isMap, from, count]] of steps.entries()) {
          const pages = Array.from({ length: Number(count) }, (_, k) => Number(from) + k);
          const owners = new Set(pages.map((k) => owner[k] ?? 0));
          const [iova, size] = [from * PAGE, count * PAGE];
          if (isMap) {
            const free = owners.size === 1 && owners.has(0);
            expect(map({ iova, size })).toBe(free ? 'OK' : 'EEXIST');
            if (free) for (const k of pages) owner[k] = n + 1;
          } else {
            const whole = [...owners].every(
              (one) => one === 0 || owner.every((o, k) => o !== one || pages.includes(k)),
            );
            expect(unmap({ iova, size })).toBe(whole ? 'OK' : 'EINVAL');
            if (!whole) continue;
            expect(unmapped()).toBe(BigInt(pages.filter((k) => owner[k] !== 0).length) * PAGE);
            for (const k of pages) owner[k] = 0;
          }
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('VFIO_IOMMU_DIRTY_PAGES', () => {
  const dirty = (flags: number, argsz = 8): string =>
    ioctl(VFIO_IOMMU_DIRTY_PAGES, vfio_iommu_type1_dirty_bitmap.encode({ argsz, flags }));

  /** GET_BITMAP, with the bitmap at the beginning of the memory. */
  function getBitmap(fields: {
    argsz?: number;
    iova?: bigint;
    size?: bigint;
    pgsize?: bigint;
    bytes?: bigint;
    data?: bigint;
  }): string {
    const bytes = new Uint8Array(8 + vfio_iommu_type1_dirty_bitmap_get.size);
    const { argsz = bytes.length, iova = 0n, size = PAGE, pgsize = PAGE, data = BigInt(memory.address) } = fields;
    vfio_iommu_type1_dirty_bitmap.encode({ argsz, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP }, bytes);
    const range = { iova, size, bitmap_pgsize: pgsize, bitmap_size: fields.bytes ?? 8n, bitmap_data: data };
    vfio_iommu_type1_dirty_bitmap_get.encode(range, bytes, 8);
    return ioctl(VFIO_IOMMU_DIRTY_PAGES, bytes);
  }

  it('is type1v2 only, and one thing at a time', () => {
    for (const flags of [0, 3, 5, 6, 7, 8, 0x8000_0000]) expect(dirty(flags)).toBe('EINVAL');
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START, 7)).toBe('EINVAL');
    expect(plain(VFIO_IOMMU_DIRTY_PAGES, BAD_ADDRESS)).toBe('EFAULT');
    container.iommu = VFIO_TYPE1_IOMMU;
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)).toBe('EACCES');
    expect(plain(VFIO_IOMMU_DIRTY_PAGES, BAD_ADDRESS)).toBe('EACCES');
  });

  it('gives bitmaps between START and STOP, all clear, and no byte more than the range needs', () => {
    expect(getBitmap({})).toBe('EINVAL');
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)).toBe('OK');
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)).toBe('OK');
    for (const [count, needed] of [
      [1n, 8],
      [64n, 8],
      [65n, 16],
      [1000n, 128],
    ] as const) {
      expect(getBitmap({ size: count * PAGE, bytes: 4096n })).toBe('OK');
      expect(memory.bytes.subarray(0, needed).every((byte) => byte === 0)).toBe(true);
      expect(memory.bytes[needed]).toBe(FILLER);
      expect(getBitmap({ size: count * PAGE, bytes: BigInt(needed) - 1n })).toBe('EINVAL');
    }
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)).toBe('OK');
    expect(dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)).toBe('OK');
    expect(getBitmap({})).toBe('EINVAL');
  });

  it('counts by the pages of the host, and maps by them', () => {
    const large = 16_384n;
    host = { ...host, pageSize: large };
    ioctl(VFIO_IOMMU_GET_INFO, vfio_iommu_type1_info.encode({ argsz: 104 }), 104);
    const info = memory.end(104);
    expect(vfio_iommu_type1_info.decode(info).iova_pgsizes).toBe(0xffff_ffff_ffff_c000n);
    expect(vfio_iommu_type1_info_cap_migration.decode(info, 24).pgsize_bitmap).toBe(large);
    const map = (size: bigint): string =>
      ioctl(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: 3, size, vaddr: large }));
    expect([map(PAGE), map(large)]).toEqual(['EINVAL', 'OK']);
    const log = new WindowLog(new Uint8Array(WINDOW_LOG_SIZE), { iova: 4096 * 6, pages: 64 });
    logs = [log];
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    log.note(0); // the device's own pages are smaller: its first is the host's second
    log.note(30); // and this is the tenth
    expect(getBitmap({ size: 64n * large })).toBe('EINVAL'); // its pages are not the host's
    host.mappings.unmapAll(5n, 99n);
    host.mappings.map(5n, 0n, 64n * large, 100n);
    expect(getBitmap({ size: 64n * large, pgsize: PAGE })).toBe('EINVAL');
    expect(getBitmap({ size: 64n * large, pgsize: large })).toBe('OK');
    expect(bits(8)).toEqual([1, 9]);
  });

  /** Two devices' logs: of 64 pages from page 16 on, and of as many from page 100 on. */
  function addLogs(): [WindowLog, WindowLog] {
    const log = (page: number): WindowLog =>
      new WindowLog(new Uint8Array(WINDOW_LOG_SIZE), { iova: page * 4096, pages: 64 });
    const both: [WindowLog, WindowLog] = [log(16), log(100)];
    logs = both;
    return both;
  }

  /** The bits that are set in the bitmap that was asked for. */
  const bits = (bytes: number): number[] =>
    Array.from({ length: bytes * 8 }, (_, n) => n).filter((n) => (((memory.bytes[n >> 3] ?? 0) >> (n & 7)) & 1) === 1);

  it('tells what any device has written to since it was asked last, of the range alone', () => {
    const [one, other] = addLogs();
    one.note(1);
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    for (const page of [0, 4, 63]) one.note(page);
    for (const page of [0, 20]) other.note(page);
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START); // it is on: nothing is forgotten
    expect(getBitmap({ size: 79n * PAGE, bytes: 16n })).toBe('OK');
    expect(bits(16)).toEqual([16, 20]);
    expect(getBitmap({ iova: 79n * PAGE, size: 30n * PAGE })).toBe('OK');
    expect(bits(8)).toEqual([0, 21]);
    expect(getBitmap({ size: 128n * PAGE, bytes: 16n })).toBe('OK');
    expect(bits(16)).toEqual([120]);
    expect(getBitmap({ size: 128n * PAGE, bytes: 16n })).toBe('OK');
    expect(bits(16)).toEqual([]);
  });

  it('tells later what could not be told', () => {
    const [one, other] = addLogs();
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    one.note(4);
    other.note(20);
    expect(getBitmap({ size: 128n * PAGE, bytes: 16n, data: BAD_ADDRESS })).toBe('EFAULT');
    expect(getBitmap({ size: 128n * PAGE, bytes: 16n })).toBe('OK');
    expect(bits(16)).toEqual([20, 120]);
  });

  it('tells of pages far into a bitmap, which is written in pieces', () => {
    const far = 9 * 1024 * 1024; // pages: behind the first MiB of the bitmap
    logs = [new WindowLog(new Uint8Array(WINDOW_LOG_SIZE), { iova: far * 4096, pages: 64 })];
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    logs[0]?.note(33);
    const wide = new Map<bigint, Uint8Array>();
    const size = BigInt(far + 64) * PAGE;
    const bytes = new Uint8Array(8 + vfio_iommu_type1_dirty_bitmap_get.size);
    vfio_iommu_type1_dirty_bitmap.encode({ argsz: bytes.length, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP }, bytes);
    const range = { iova: 0n, size, bitmap_pgsize: PAGE, bitmap_size: size / PAGE / 8n, bitmap_data: 0n };
    vfio_iommu_type1_dirty_bitmap_get.encode(range, bytes, 8);
    const argument = memory.argument(memory.put(bytes));
    const writeAt = (at: bigint, piece: Uint8Array): void => void wide.set(at, piece.slice());
    expect(containerRequest({ ...argument, writeAt }, VFIO_IOMMU_DIRTY_PAGES, container, host)).toBe(0);
    expect([...wide].map(([at, piece]) => [at, piece.length])).toEqual([
      [0n, 2 ** 20],
      [BigInt(2 ** 20), far / 8 + 8 - 2 ** 20],
    ]);
    const last = wide.get(BigInt(2 ** 20)) ?? new Uint8Array(0);
    expect(last.subarray(-8)).toBeBytes(Uint8Array.of(0, 0, 0, 0, 2, 0, 0, 0));
    expect(last.subarray(0, -8).every((byte) => byte === 0)).toBe(true);
    expect(wide.get(0n)?.every((byte) => byte === 0)).toBe(true);
  });

  it('refuses absurd ranges and bitmaps', () => {
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    host.mappings.map(5n, 8n * PAGE, 4n * PAGE, 1n);
    for (const fields of [
      { argsz: 47 },
      { size: 0n },
      { size: 100n },
      { iova: 100n },
      { iova: 2n ** 64n - PAGE, size: 2n * PAGE },
      { pgsize: 2n * PAGE },
      { pgsize: 0n },
      { bytes: 0n },
      { size: 2n ** 63n, bytes: 2n ** 62n },
      { bytes: 256n * MiB + 1n },
      { iova: 9n * PAGE },
      { iova: 8n * PAGE, size: 3n * PAGE },
      { iova: 4n * PAGE, size: 5n * PAGE },
    ]) {
      expect(
        getBitmap(fields),
        JSON.stringify(fields, (_, value: unknown) => String(value)),
      ).toBe('EINVAL');
    }
    expect(getBitmap({ size: 32n * PAGE })).toBe('OK');
    for (const data of [BAD_ADDRESS, 2n ** 64n - 8n, 2n ** 63n]) expect(getBitmap({ data })).toBe('EFAULT');
    // a large range, whose bitmap the target claims to have
    const size = 2n ** 40n;
    expect(getBitmap({ size, bytes: size / PAGE / 8n })).toBe('EFAULT');
  });

  /** UNMAP of some of the first pages, with a bitmap. */
  function unmap(bitmap: { pgsize?: bigint; size?: bigint; data?: bigint }, argsz = 48, pages = 4n): string {
    const bytes = new Uint8Array(48);
    const flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    vfio_iommu_type1_dma_unmap.encode({ argsz, flags, iova: 0n, size: pages * PAGE }, bytes);
    vfio_bitmap.encode({ pgsize: PAGE, size: 8n, data: BigInt(memory.address), ...bitmap }, bytes, 24);
    return ioctl(VFIO_IOMMU_UNMAP_DMA, bytes);
  }

  it('comes with an unmap, and is told once if that is done', () => {
    const [one] = addLogs();
    host.mappings.map(5n, 0n, 32n * PAGE, 1n);
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    one.note(2);
    one.note(20);
    expect(unmap({}, 48, 31n)).toBe('EINVAL');
    expect(unmap({ data: BAD_ADDRESS }, 48, 32n)).toBe('EFAULT');
    expect(unmap({}, 48, 32n)).toBe('OK');
    expect(bits(8)).toEqual([18]);
    expect(getBitmap({ size: 64n * PAGE })).toBe('OK');
    expect(bits(8)).toEqual([36]);
  });

  it('comes with an unmap, while it is logged', () => {
    host.mappings.map(5n, 0n, 4n * PAGE, 1n);
    expect(unmap({})).toBe('EINVAL');
    dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    expect(unmap({}, 47)).toBe('EINVAL');
    expect(unmap({ pgsize: 8192n })).toBe('EINVAL');
    expect(unmap({ size: 7n })).toBe('EINVAL');
    expect(unmap({ data: BAD_ADDRESS })).toBe('EFAULT');
    expect(host.mappings.available).toBe(MAX_MAPPINGS - 1);
    expect(unmap({})).toBe('OK');
    expect(memory.bytes.subarray(0, 9)).toEqual(new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, FILLER]));
    expect(host.mappings.available).toBe(MAX_MAPPINGS);
  });
});
