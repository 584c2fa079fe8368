import { expect, it } from 'vitest';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import {
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../../src/abi/vfio.ts';
import { DMA_MAGIC, DMA_PAGE, dma_record } from '../../../src/sim/dma.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const PAGES = 8;
const SIZE = PAGES * DMA_PAGE;
const IOVA = 0x200_0000;
const CONFIG = 7n << 40n;
const COMMAND_AT = CONFIG + 4n;
const BUS_MASTER = 4;

type Opened = Awaited<ReturnType<VfioPuppet['openDevices']>>;

describeWithCompiler('an emulated device that does DMA', () => {
  const start = useShimRuns();

  /** A program with memory that a device may write to, of which it is told nothing. */
  class Guest {
    readonly user: VfioPuppet;
    readonly container: number;
    readonly group: number;
    readonly device: DevicePuppet;
    readonly memory: bigint;

    private constructor(user: VfioPuppet, opened: Opened, memory: bigint) {
      const { container, groups, devices } = opened;
      const [group = -1] = groups;
      const [device] = devices as [DevicePuppet];
      this.user = user;
      this.container = container;
      this.group = group;
      this.device = device;
      this.memory = memory;
    }

    static async start(driver = 'vendor-v1', dma = `dma-at=0x${IOVA.toString(16)}+${SIZE}`): Promise<Guest> {
      const spec = `${driver},size=64K,dma=20000,${dma}`;
      const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [spec] })));
      const opened = await user.openDevices();
      const flags = MAP_PRIVATE | MAP_ANONYMOUS;
      const { value: memory } = await user.puppet.call('mmap', [0, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0]);
      const map = { argsz: 32, flags: 3, vaddr: memory, iova: BigInt(IOVA), size: BigInt(SIZE) };
      value(await user.ioctl(opened.container, VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map.encode(map)));
      return new Guest(user, opened, memory);
    }

    async setCommand(command: number): Promise<void> {
      value(await this.user.pwrite(this.device.fd, Uint8Array.of(command, 0), COMMAND_AT));
    }

    read(): Promise<Uint8Array> {
      return this.user.peek(this.memory, SIZE);
    }

    async clear(): Promise<void> {
      await this.user.poke(this.memory, new Uint8Array(SIZE));
    }

    /** The pages that hold a record. */
    async written(): Promise<number[]> {
      const bytes = await this.read();
      const holds = (page: number): boolean => dma_record.decode(bytes, page * DMA_PAGE).magic === DMA_MAGIC;
      return Array.from({ length: PAGES }, (_, page) => page).filter(holds);
    }

    async untilWritten(): Promise<void> {
      const some = async (): Promise<true | undefined> => ((await this.written()).length > 0 ? true : undefined);
      await poll(some, 10_000, () => `the device to write\n${this.user.puppet.run.describe()}`);
    }

    /** Has so many calls served that a device which may write does. */
    async expectSilence(): Promise<void> {
      const before = await this.read();
      for (let n = 0; n < 50; n += 1) value(await this.user.ioctl(this.container, VFIO_GET_API_VERSION));
      expect(await this.read()).toBeBytes(before);
    }

    async dirty(flags: number): Promise<void> {
      const request = vfio_iommu_type1_dirty_bitmap.encode({ argsz: 8, flags });
      value(await this.user.ioctl(this.container, VFIO_IOMMU_DIRTY_PAGES, request));
    }

    /** The pages that the container tells. */
    async told(): Promise<number[]> {
      const bytes = new Uint8Array(8 + vfio_iommu_type1_dirty_bitmap_get.size);
      const flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
      vfio_iommu_type1_dirty_bitmap.encode({ argsz: bytes.length, flags }, bytes);
      const bitmap = await this.user.puppet.memory('bitmap', 8);
      const into = { bitmap_pgsize: BigInt(DMA_PAGE), bitmap_size: 8n, bitmap_data: bitmap };
      const range = { iova: BigInt(IOVA), size: BigInt(SIZE), ...into };
      vfio_iommu_type1_dirty_bitmap_get.encode(range, bytes, 8);
      value(await this.user.ioctl(this.container, VFIO_IOMMU_DIRTY_PAGES, bytes));
      const [bits = 0] = await this.user.peek(bitmap, 8);
      return Array.from({ length: PAGES }, (_, page) => page).filter((page) => ((bits >> page) & 1) === 1);
    }
  }

  it('writes while it runs as a bus master, and no page after the answer to the call that stops it', async () => {
    const guest = await Guest.start();
    await guest.expectSilence();
    await guest.setCommand(BUS_MASTER);
    for (const state of [V1.STOP, V1.RUNNING, V1.PRE_COPY, V1.STOP_COPY, V1.RUNNING, V1.STOP]) {
      const writes = (state & V1.RUNNING) !== 0;
      if (writes) await guest.clear();
      else await guest.untilWritten();
      await guest.device.enter(state);
      if (writes) await guest.untilWritten();
      else await guest.expectSilence();
    }
    expect(guest.user.puppet.run.stderr).not.toContain('cannot write');
  });

  it.each(['qat', 'vendor-v1'])(
    '%s reads memory of its guest, and writes it to another place there',
    async (driver) => {
      const HALF = PAGES / 2;
      const at = (page: number): string => `0x${(IOVA + page * DMA_PAGE).toString(16)}`;
      const guest = await Guest.start(driver, `dma-at=${at(HALF)}+${SIZE / 2},dma-from=${at(0)}+${SIZE / 2}`);
      const source = Uint8Array.from({ length: SIZE / 2 }, (_, n) => n * 11 + (n >> 12));
      await guest.user.poke(guest.memory, source);
      await guest.setCommand(BUS_MASTER);
      const all = async (): Promise<true | undefined> => ((await guest.written()).length === HALF ? true : undefined);
      await poll(all, 10_000, () => `the device to copy\n${guest.user.puppet.run.describe()}`);
      await guest.setCommand(0);
      const bytes = await guest.read();
      expect(bytes.subarray(0, SIZE / 2)).toBeBytes(source);
      for (let page = HALF; page < PAGES; page += 1) {
        const copy = bytes.subarray(page * DMA_PAGE, (page + 1) * DMA_PAGE);
        const { counter, iova } = dma_record.decode(copy);
        expect(iova).toBe(IOVA + page * DMA_PAGE);
        const from = (counter % HALF) * DMA_PAGE;
        expect(copy.subarray(dma_record.size)).toBeBytes(source.subarray(from + dma_record.size, from + DMA_PAGE));
      }
      expect(guest.user.puppet.run.stderr).not.toContain('cannot read');
    },
  );

  it('is told of by its container, page for page, also when the supervisor was killed', async () => {
    const guest = await Guest.start();
    await guest.setCommand(BUS_MASTER);
    await guest.untilWritten();
    await guest.device.enter(V1.STOP);
    for (let round = 0; round < 3; round += 1) {
      await guest.clear();
      await guest.dirty(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
      expect(round === 0 ? await guest.told() : []).toEqual([]);
      await guest.device.enter(V1.PRE_COPY);
      await guest.untilWritten();
      if (round > 0) {
        const run = guest.user.puppet.run;
        const killed = await run.supervisor();
        killHard(killed);
        await run.supervisor(killed);
      }
      await guest.device.enter(V1.STOP_COPY);
      const written = await guest.written();
      const told = await guest.told();
      expect(told).toEqual(expect.arrayContaining(written));
      if (round === 0) expect(written).toEqual(told); // a successor may tell more
      expect(await guest.told()).toEqual([]);
      await guest.device.enter(V1.RUNNING);
      await guest.device.enter(V1.STOP);
      await guest.told();
    }
  });

  it('writes to nothing that is unmapped, though it runs', async () => {
    const guest = await Guest.start();
    await guest.setCommand(BUS_MASTER);
    await guest.untilWritten();
    const unmap = vfio_iommu_type1_dma_unmap.encode({ argsz: 24, iova: BigInt(IOVA), size: BigInt(SIZE) });
    value(await guest.user.ioctl(guest.container, VFIO_IOMMU_UNMAP_DMA, unmap));
    await guest.expectSilence();
  });

  it('writes no more when it is closed, and its next user finds no bus master', async () => {
    const guest = await Guest.start('qat');
    await guest.setCommand(BUS_MASTER);
    await guest.untilWritten();
    value(await guest.user.puppet.call('close', [guest.device.fd]));
    // that was no call that is trapped: a burst may have been under way, which ends before this one is served
    value(await guest.user.ioctl(guest.container, VFIO_GET_API_VERSION));
    await guest.expectSilence();
    const { user } = guest;
    const name = Buffer.from('0000:90:00.0\0');
    const again = value(await user.ioctl(guest.group, VFIO_GROUP_GET_DEVICE_FD, name));
    const { bytes } = await user.pread(again, 2, COMMAND_AT);
    expect(bytes).toBeBytes(Uint8Array.of(2, 0));
    await guest.expectSilence();
  });
});
