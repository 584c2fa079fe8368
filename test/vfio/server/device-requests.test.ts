import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_REQ_IRQ_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../../src/abi/vfio.ts';
import { DATA_OFFSET } from '../../../src/v1/region.ts';
import { deviceRequest, MIGRATION_REGION_INDEX, type DeviceHost } from '../../../src/vfio/server/device-requests.ts';
import { emulatedRegions } from '../../../src/interpose/emulated/emulated-regions.ts';
import { planDevice } from '../../../src/interpose/run/plan-device.ts';
import { regionOffset } from '../../../src/interpose/run/window.ts';
import { irq_live, irq_setup, PciInterrupts, type IrqEvent } from '../../../src/vfio/server/interrupts.ts';
import { createSim } from '../../../src/sim/create.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import type { V1Device } from '../../../src/v1/device.ts';
import { capabilities } from '../../support/capabilities.ts';
import { outcome } from '../../support/errno.ts';
import { BAD_ADDRESS, FILLER, UserMemory } from '../../support/user-memory.ts';

const READ_WRITE = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
const SECTION = 64 * 1024;
const spec = parseSpec('vendor-v1,size=100K,section=64K');
const regions = emulatedRegions(planDevice(2, 'vendor-v1', spec, SECTION), 2);

const memory = new UserMemory();
const event: IrqEvent = { signal: () => {}, take: () => false, close: () => {} };
const carrier = { openDataFd: (): void => {}, takeEventFd: (): IrqEvent => event };
let log: string[];
let host: DeviceHost<IrqEvent>;
let present: V1Device | undefined;

beforeEach(() => {
  log = [];
  const sim = createSim(spec);
  present = sim.protocol === 'v1' ? sim.device : undefined;
  const interrupts = new PciInterrupts({
    counts: { [VFIO_PCI_INTX_IRQ_INDEX]: 1, [VFIO_PCI_REQ_IRQ_INDEX]: 1 },
    setup: irq_setup.view(new Uint8Array(irq_setup.size)),
    live: irq_live.view(new Uint8Array(irq_live.size)),
  });
  host = {
    region: present,
    v2: undefined,
    interrupts,
    firstLook: () => log.push('look'),
    reset: () => log.push('reset'),
  };
});

function plain(command: number, argument: number | bigint = 0): string {
  return outcome(() => deviceRequest(memory.argument(argument), command, host, regions, carrier));
}

/** The errno, or `OK`, of an ioctl whose argument is a struct at the end of accessible memory. */
function ioctl(command: number, argument: Uint8Array, room = argument.length): string {
  return plain(command, memory.put(argument, room));
}

it('a device has the ioctls of vfio-pci and no others', () => {
  for (const command of [0x3b64, 0x3b67, 0x3b70, 0x3b71, VFIO_DEVICE_FEATURE, 0x3b7d])
    expect(plain(command)).toBe('ENOTTY');
  expect(plain(VFIO_DEVICE_RESET)).toBe('OK');
  expect(log).toEqual(['reset']);
});

describe('VFIO_DEVICE_GET_INFO', () => {
  it('writes what argsz has room for, and is the first look at a device', () => {
    for (let argsz = 0; argsz < 40; argsz += 1) {
      const room = Math.max(argsz, 4);
      const answer = ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz }), room);
      expect(answer).toBe(argsz < 16 ? 'EINVAL' : 'OK');
      expect(log.splice(0)).toEqual(argsz < 16 ? [] : ['look']);
      if (argsz < 16) continue;
      const bytes = memory.end(room);
      const padded = new Uint8Array(40);
      padded.set(bytes);
      padded.fill(0, Math.min(argsz, vfio_device_info.size));
      expect(vfio_device_info.decode(padded)).toMatchObject({
        argsz,
        flags: VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
        num_regions: VFIO_PCI_NUM_REGIONS + 1,
        num_irqs: VFIO_PCI_NUM_IRQS,
        cap_offset: 0,
      });
      expect(bytes.subarray(vfio_device_info.size).every((byte) => byte === FILLER)).toBe(true);
    }
    expect(plain(VFIO_DEVICE_GET_INFO, BAD_ADDRESS)).toBe('EFAULT');
    expect(ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: 24 }), 16)).toBe('EFAULT');
  });

  it('shows no region of ours where v1 is not presented', () => {
    host = { ...host, region: undefined };
    const { size } = vfio_device_info;
    ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: size }));
    expect(vfio_device_info.decode(memory.end(size)).num_regions).toBe(VFIO_PCI_NUM_REGIONS);
  });
});

describe('VFIO_DEVICE_GET_REGION_INFO', () => {
  const ask = (index: number, argsz: number = vfio_region_info.size): string =>
    ioctl(VFIO_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz, index, flags: 7 }), Math.max(argsz, 32));

  it('shows BAR0, the BAR of MSI-X, config space and empty regions at their places', () => {
    for (let index = 0; index < VFIO_PCI_VGA_REGION_INDEX; index += 1) {
      expect(ask(index)).toBe('OK');
      const info = vfio_region_info.decode(memory.end(32));
      const expected =
        index === VFIO_PCI_BAR0_REGION_INDEX
          ? { size: 131072n, flags: READ_WRITE | VFIO_REGION_INFO_FLAG_MMAP }
          : index === VFIO_PCI_CONFIG_REGION_INDEX
            ? { size: 256n, flags: READ_WRITE }
            : index === VFIO_PCI_BAR2_REGION_INDEX
              ? { size: 4096n, flags: READ_WRITE }
              : { size: 0n, flags: 0 };
      const offset = (index === VFIO_PCI_BAR0_REGION_INDEX ? 9n : BigInt(index)) << 40n;
      expect(info).toEqual({ argsz: 32, index, cap_offset: 0, offset, ...expected });
    }
  });

  it('refuses regions that are not there, and an argsz without room', () => {
    for (const index of [VFIO_PCI_VGA_REGION_INDEX, MIGRATION_REGION_INDEX + 1, 100, 0xffff_ffff])
      expect(ask(index)).toBe('EINVAL');
    for (const argsz of [0, 1, 31]) expect(ask(0, argsz)).toBe('EINVAL');
    host = { ...host, region: undefined };
    expect(ask(MIGRATION_REGION_INDEX)).toBe('EINVAL');
    expect(plain(VFIO_DEVICE_GET_REGION_INFO, BAD_ADDRESS)).toBe('EFAULT');
    expect(ioctl(VFIO_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz: 32 }), 31)).toBe('EFAULT');
  });

  it('shows the migration region, with its capabilities where argsz has room for them', () => {
    const whole = 32 + 16 + 16 + 16;
    for (let argsz = 32; argsz < 140; argsz += 1) {
      expect(ask(MIGRATION_REGION_INDEX, argsz)).toBe('OK');
      const bytes = memory.end(argsz);
      const fits = argsz >= whole;
      expect(bytes.subarray(fits ? whole : 32).every((byte) => byte === FILLER)).toBe(true);
      expect(vfio_region_info.decode(bytes)).toEqual({
        argsz: Math.max(argsz, whole),
        flags: READ_WRITE | VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS,
        index: MIGRATION_REGION_INDEX,
        cap_offset: fits ? 32 : 0,
        size: BigInt(DATA_OFFSET + SECTION),
        offset: regionOffset(2),
      });
      if (!fits) continue;
      const [type, sparse, ...more] = capabilities(bytes, 32);
      expect(more).toEqual([]);
      expect([type?.id, sparse?.id]).toEqual([VFIO_REGION_INFO_CAP_TYPE, VFIO_REGION_INFO_CAP_SPARSE_MMAP]);
      expect(vfio_region_info_cap_type.decode(bytes, type?.at)).toMatchObject({ type: 3, subtype: 1 });
      expect(vfio_region_info_cap_sparse_mmap.decode(bytes, sparse?.at).nr_areas).toBe(1);
      const area = vfio_region_sparse_mmap_area.decode(bytes, (sparse?.at ?? 0) + 16);
      expect(area).toEqual({ offset: BigInt(DATA_OFFSET), size: BigInt(SECTION) });
    }
    expect(ioctl(VFIO_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz: 9999, index: 9 }), 79)).toBe('EFAULT');
  });
});

describe('interrupts', () => {
  it('are INTx, and the request to give the device back', () => {
    for (let index = 0; index < VFIO_PCI_NUM_IRQS + 2; index += 1) {
      const answer = ioctl(VFIO_DEVICE_GET_IRQ_INFO, vfio_irq_info.encode({ argsz: 16, index }));
      expect(answer).toBe(index >= VFIO_PCI_NUM_IRQS || index === VFIO_PCI_ERR_IRQ_INDEX ? 'EINVAL' : 'OK');
      if (answer !== 'OK') continue;
      const intx = index === VFIO_PCI_INTX_IRQ_INDEX;
      const more = intx ? VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED : VFIO_IRQ_INFO_NORESIZE;
      expect(vfio_irq_info.decode(memory.end(16))).toEqual({
        argsz: 16,
        index,
        flags: VFIO_IRQ_INFO_EVENTFD | more,
        count: intx || index === VFIO_PCI_REQ_IRQ_INDEX ? 1 : 0,
      });
    }
    for (const argsz of [0, 15]) {
      expect(ioctl(VFIO_DEVICE_GET_IRQ_INFO, vfio_irq_info.encode({ argsz }))).toBe('EINVAL');
    }
    expect(plain(VFIO_DEVICE_GET_IRQ_INFO, BAD_ADDRESS)).toBe('EFAULT');
  });

  it('can be set up within their number, with the data that the flags announce', () => {
    const trigger = VFIO_IRQ_SET_ACTION_TRIGGER;
    const set = (fields: Parameters<typeof vfio_irq_set.encode>[0], data = 4): string => {
      const bytes = new Uint8Array(20 + data);
      vfio_irq_set.encode({ argsz: 20 + data, flags: trigger | VFIO_IRQ_SET_DATA_EVENTFD, count: 1, ...fields }, bytes);
      return ioctl(VFIO_DEVICE_SET_IRQS, bytes);
    };
    expect(set({})).toBe('OK');
    expect(set({ flags: trigger | VFIO_IRQ_SET_DATA_BOOL }, 1)).toBe('OK');
    expect(set({ flags: VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_DATA_NONE }, 0)).toBe('OK');
    expect(set({ flags: trigger | VFIO_IRQ_SET_DATA_NONE, count: 0 }, 0)).toBe('OK');
    expect(set({ flags: trigger | VFIO_IRQ_SET_DATA_NONE, count: 0 }, 0)).toBe('EINVAL'); // it is off already
    expect(set({ index: VFIO_PCI_REQ_IRQ_INDEX })).toBe('OK');
    const refused: [Parameters<typeof vfio_irq_set.encode>[0], number?][] = [
      [{ argsz: 19 }],
      [{ argsz: 23 }],
      [{ argsz: 20, flags: trigger | VFIO_IRQ_SET_DATA_BOOL }],
      [{ flags: 0 }],
      [{ flags: trigger }],
      [{ flags: trigger | VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_DATA_NONE }],
      [{ flags: trigger | VFIO_IRQ_SET_DATA_EVENTFD | 0x40 }],
      [{ index: VFIO_PCI_NUM_IRQS }],
      [{ index: 0xffff_ffff }],
      [{ index: 1 }],
      [{ index: VFIO_PCI_ERR_IRQ_INDEX }],
      [{ start: 1 }],
      [{ start: 1, count: 0 }],
      [{ count: 2 }, 8],
      [{ count: 0 }],
      [{ count: 0xffff_ffff, start: 1, argsz: 0xffff_ffff }],
      [{ count: 0x4000_0000, argsz: 20 }],
    ];
    for (const [fields, data] of refused) expect(set(fields, data), JSON.stringify(fields)).toBe('EINVAL');
    const unknown = [VFIO_IRQ_SET_DATA_EVENTFD, trigger | VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_DATA_NONE];
    for (const flags of unknown) expect(set({ flags })).toBe('ENOTTY');
    expect(plain(VFIO_DEVICE_SET_IRQS, BAD_ADDRESS)).toBe('EFAULT');
    const cut = vfio_irq_set.encode({ argsz: 24, flags: trigger | VFIO_IRQ_SET_DATA_EVENTFD, count: 1 });
    expect(ioctl(VFIO_DEVICE_SET_IRQS, cut)).toBe('EFAULT');
  });
});
