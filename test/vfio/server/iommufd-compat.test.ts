import { beforeEach, describe, expect, it } from 'vitest';
import type { Fields, Struct, Values } from '../../../src/abi/struct.ts';
import * as vfio from '../../../src/abi/vfio.ts';
import { DmaMappings } from '../../../src/vfio/server/dma-mappings.ts';
import { attach } from '../../../src/vfio/server/hwpt-requests.ts';
import { becomeContainer } from '../../../src/vfio/server/iommufd-compat.ts';
import { iommufdRequest } from '../../../src/vfio/server/iommufd-requests.ts';
import {
  keyOf,
  type BoundDevice,
  type IommufdHost,
  type IommufdState,
} from '../../../src/vfio/server/iommufd-state.ts';
import { MAPPING_STRIDE } from '../../../src/vfio/server/mapping.ts';
import { failure, outcome } from '../../support/errno.ts';
import { UserMemory } from '../../support/user-memory.ts';

const PAGE = 4096n;
const LAST = 2n ** 48n - 1n;
const U64 = 2n ** 64n;
const READ_WRITE = vfio.VFIO_DMA_MAP_FLAG_READ | vfio.VFIO_DMA_MAP_FLAG_WRITE;
const { VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU } = vfio;

const memory = new UserMemory();
let context: IommufdState;
let host: { -readonly [K in keyof IommufdHost]: IommufdHost[K] };
let calls = 0n;

beforeEach(() => {
  context = { inode: 5, byProcess: false, vfioIoas: 0, objects: [] };
  host = {
    pageSize: PAGE,
    mappings: new DmaMappings(new Uint8Array(64 * MAPPING_STRIDE)),
    mapsFiles: false,
    checkRoom: () => {},
    mapper: () => ({ process: 77n, program: 78n }),
    hasBar: () => false,
    mayAccount: () => true,
    fileOf: () => {
      throw failure('EBADF', 'ERR_TARGET');
    },
    logs: () => [],
  };
});

/** What a request with a number is answered, or its errno. */
function number(command: number, value: number): number | string {
  let result = -1;
  const argument = { ...memory.argument(0, (calls += 1n)), value };
  const errno = outcome(() => (result = iommufdRequest(argument, command, context, host)));
  return errno === 'OK' ? result : errno;
}

let answer: Readonly<Record<string, number | bigint>> = {};
function ask<F extends Fields>(command: number, struct: Struct<F>, fields: Partial<Values<F>>): string {
  const at = memory.put(struct.encode({ argsz: struct.size, ...fields }));
  const result = outcome(() => iommufdRequest(memory.argument(at, (calls += 1n)), command, context, host));
  answer = struct.decode(memory.end(struct.size));
  return result;
}

const map = (fields: Partial<Values<typeof vfio.vfio_iommu_type1_dma_map.fields>>): string =>
  ask(vfio.VFIO_IOMMU_MAP_DMA, vfio.vfio_iommu_type1_dma_map, {
    flags: READ_WRITE,
    vaddr: 64n * PAGE,
    size: PAGE,
    ...fields,
  });
const unmap = (iova: bigint, size: bigint, flags = 0): string =>
  ask(vfio.VFIO_IOMMU_UNMAP_DMA, vfio.vfio_iommu_type1_dma_unmap, { iova, size, flags });
const setIommu = (type: number): number | string => number(vfio.VFIO_SET_IOMMU, type);

/** A group is in the context, and its device is open. */
function withDevice(type = VFIO_TYPE1v2_IOMMU): void {
  becomeContainer(context, host);
  expect(setIommu(type)).toBe(0);
  const device: BoundDevice = { kind: 'device', id: 9, place: 0, hwpt: 0 };
  context.objects.push(device);
  attach(context, device, context.vfioIoas, host, () => {});
}

/** drivers/iommu/iommufd/vfio_compat.c of Linux 6.12. */
describe('/dev/iommu in the place of a container', () => {
  it('has no IOMMU before there is a group', () => {
    expect(number(vfio.VFIO_GET_API_VERSION, 0)).toBe(vfio.VFIO_API_VERSION);
    expect([setIommu(VFIO_TYPE1v2_IOMMU), map({}), unmap(0n, PAGE)]).toEqual(['ENODEV', 'ENODEV', 'ENODEV']);
    expect(ask(vfio.VFIO_IOMMU_GET_INFO, vfio.vfio_iommu_type1_info, {})).toBe('ENODEV');
    expect(number(vfio.VFIO_CHECK_EXTENSION, vfio.VFIO_DMA_CC_IOMMU)).toBe('ENODEV');
    const extensions = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, vfio.VFIO_UNMAP_ALL, vfio.VFIO_UPDATE_VADDR, 8];
    expect(extensions.map((each) => number(vfio.VFIO_CHECK_EXTENSION, each))).toEqual([1, 1, 1, 0, 0]);
  });

  it('makes one address space for all groups, which is the one that is set, if one is', () => {
    becomeContainer(context, host);
    becomeContainer(context, host);
    expect(context).toMatchObject({ vfioIoas: 1, objects: [{ kind: 'ioas', id: 1 }] });
    expect([setIommu(2), setIommu(VFIO_TYPE1v2_IOMMU), setIommu(VFIO_TYPE1_IOMMU)]).toEqual(['EINVAL', 0, 0]);
    expect(number(vfio.VFIO_CHECK_EXTENSION, vfio.VFIO_DMA_CC_IOMMU)).toBe(0);
    host.checkRoom = () => {
      throw failure('ENOMEM', 'ERR_TARGET');
    };
    context.vfioIoas = 0;
    expect(outcome(() => becomeContainer(context, host))).toBe('ENOMEM');
    expect(context.objects).toHaveLength(1);
  });

  it('says what it is, as far as argsz has room', () => {
    withDevice();
    const whole = 72;
    for (const argsz of [15, 16, 20, 24, 71, 72, 200]) {
      const bytes = new Uint8Array(Math.max(argsz, 24));
      vfio.vfio_iommu_type1_info.encode({ argsz }, bytes);
      const at = memory.put(bytes, argsz < 16 ? 16 : argsz);
      const result = outcome(() =>
        iommufdRequest(memory.argument(at, (calls += 1n)), vfio.VFIO_IOMMU_GET_INFO, context, host),
      );
      expect(result, String(argsz)).toBe(argsz < 16 ? 'EINVAL' : 'OK');
      if (argsz < 24) continue;
      const told = memory.end(argsz);
      expect(vfio.vfio_iommu_type1_info.decode(told)).toMatchObject({
        argsz: whole,
        iova_pgsizes: U64 - PAGE,
        cap_offset: argsz < whole ? 0 : 24,
      });
      if (argsz < whole) continue;
      expect(vfio.vfio_iommu_type1_info_dma_avail.decode(told, 24)).toMatchObject({
        id: vfio.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
        next: 40,
        avail: host.mappings.available,
      });
      expect(vfio.vfio_iommu_type1_info_cap_iova_range.decode(told, 40)).toMatchObject({ next: 0, nr_iovas: 1 });
      expect(vfio.vfio_iova_range.decode(told, 56)).toEqual({ start: 0n, end: LAST });
    }
  });

  it('maps and unmaps whole mappings, and says what is wrong with a request', () => {
    withDevice();
    expect(map({ iova: 8n * PAGE, size: 4n * PAGE })).toBe('OK');
    expect(host.mappings.at(keyOf(context, 1), 9n * PAGE)).toMatchObject({
      vaddr: 64n * PAGE,
      process: 77n,
      writable: true,
    });
    const wrong: [Parameters<typeof map>[0], string][] = [
      [{ argsz: 31 }, 'EINVAL'],
      [{ flags: READ_WRITE | vfio.VFIO_DMA_MAP_FLAG_VADDR }, 'EINVAL'],
      [{ size: 0n }, 'EINVAL'],
      [{ size: 100n }, 'EINVAL'],
      [{ iova: 100n }, 'EINVAL'],
      [{ vaddr: 100n }, 'EINVAL'],
      [{ vaddr: U64 - PAGE, size: 2n * PAGE }, 'EOVERFLOW'],
      [{ iova: U64 - PAGE, size: 2n * PAGE }, 'EOVERFLOW'],
      [{ iova: LAST + 1n }, 'EINVAL'],
      [{ iova: 11n * PAGE }, 'EEXIST'],
    ];
    for (const [fields, errno] of wrong) expect(map(fields), JSON.stringify(Object.keys(fields))).toBe(errno);
    expect([unmap(0n, 0n), unmap(U64 - PAGE, 2n * PAGE), unmap(0n, PAGE, 1)]).toEqual([
      'EINVAL',
      'EOVERFLOW',
      'EINVAL',
    ]);
    expect([unmap(9n * PAGE, PAGE), unmap(PAGE, PAGE, vfio.VFIO_DMA_UNMAP_FLAG_ALL)]).toEqual(['ENOENT', 'EINVAL']);
    expect([unmap(0n, PAGE), answer['size']]).toEqual(['OK', 0n]);
    expect([unmap(8n * PAGE, 9n * PAGE), answer['size']]).toEqual(['OK', 4n * PAGE]);
    expect([map({}), map({ iova: PAGE })]).toEqual(['OK', 'OK']);
    expect([unmap(0n, 0n, vfio.VFIO_DMA_UNMAP_FLAG_ALL), answer['size']]).toEqual(['OK', 2n * PAGE]);
    expect([unmap(0n, 0n, vfio.VFIO_DMA_UNMAP_FLAG_ALL), answer['size']]).toEqual(['OK', 0n]);
  });

  it('unmaps a part of a mapping too, if it is of type1', () => {
    withDevice(VFIO_TYPE1_IOMMU);
    expect(map({ iova: 8n * PAGE, size: 8n * PAGE })).toBe('OK');
    expect([unmap(10n * PAGE, 2n * PAGE), answer['size']]).toEqual(['OK', 2n * PAGE]);
    const left = host.mappings.within(keyOf(context, 1), 0n, LAST);
    expect(left.map(({ iova, size, vaddr }) => [iova / PAGE, size / PAGE, vaddr / PAGE])).toEqual([
      [8n, 2n, 64n],
      [12n, 4n, 68n],
    ]);
    expect([unmap(8n * PAGE + 5n, PAGE), unmap(8n * PAGE, 5n)]).toEqual(['EINVAL', 'EINVAL']);
    expect([unmap(0n, 13n * PAGE), answer['size']]).toEqual(['OK', 3n * PAGE]);
    expect(host.mappings.within(keyOf(context, 1), 0n, LAST)).toHaveLength(1);
  });

  it('has no memory at a BAR', () => {
    withDevice();
    host.hasBar = (vaddr, length) => vaddr < 66n * PAGE && vaddr + length > 65n * PAGE;
    expect([map({ size: 2n * PAGE }), map({ vaddr: 65n * PAGE }), map({ vaddr: 66n * PAGE })]).toEqual([
      'EFAULT',
      'EFAULT',
      'OK',
    ]);
  });
});
