import { fstatSync } from 'node:fs';
import type { ErrnoName } from '../../src/abi/errno.ts';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
} from '../../src/abi/vfio-ioctl.ts';
import { vfio_device_info } from '../../src/abi/vfio-device.ts';
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../../src/abi/vfio-iommu.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
  vfio_device_feature_mig_state,
} from '../../src/abi/vfio-v2.ts';
import { ShimError } from '../../src/error.ts';
import { Bridging } from '../../src/interpose/bridged/bridging.ts';
import { Findings } from '../../src/interpose/bridged/findings.ts';
import type { Reach } from '../../src/interpose/bridged/reach.ts';
import { JournalLayout } from '../../src/interpose/memory/journal.ts';
import { Ledgers } from '../../src/interpose/memory/ledger.ts';
import { BRIDGED } from '../../src/interpose/run/plan.ts';
import { CONTINUE } from '../../src/interpose/trap/call.ts';
import type { DeviceHandle } from '../../src/kernel/handle.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { addressOf, trySyscall } from '../../src/sys/libc.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { V2 } from '../../src/v2/states.ts';
import { PageBits } from '../../src/vfio/page-bits.ts';
import type { PageRange, PageSet } from '../../src/vfio/page-ranges.ts';
import type { DmaLog } from '../../src/vfio/dma-log.ts';
import { bridgingOptions } from './bridging-options.ts';
import { BytePort, failed, u64, type FakeFeature } from './byte-port.ts';
import { HardwareContainer, pagesIn, SimLog } from './dirty-world.ts';
import { selfCall } from './self-call.ts';
import { turnOf } from './self-turn.ts';

/** A device of the host: of v2 with a log, of v2 without, or of a driver that cannot migrate. */
export interface HostDevice {
  readonly name: string;
  readonly group: number;
  readonly log?: SimLog;
  readonly migrates?: boolean;
}

/**
 * A host with containers, groups and devices that are files of this process, and a VMM, which is this process too, under supervisors
 * that come one after the other. The kernel is as far as it concerns dirty pages.
 */
export class DirtyHost {
  readonly said: string[] = [];
  readonly container: HardwareContainer;
  readonly #files = new Map<number, OwnedFd>();
  readonly #ports = new Map<number, BytePort>();
  readonly #containers = new Map<number, HardwareContainer>();
  readonly #groups = new Map<number, string>();
  readonly #attached = new Set<number>();
  readonly #journal: Uint8Array;
  #ledgers!: Ledgers;
  #bridging!: Bridging;
  #next = 1000;
  #id = 1n;

  constructor(mappings: PageSet, present: 'v1' | 'auto' = 'v1') {
    this.container = new HardwareContainer(mappings);
    this.#journal = new Uint8Array(new JournalLayout(BRIDGED).size);
    this.begin(present);
  }

  /** A supervisor begins, the first or a successor. */
  begin(present: 'v1' | 'auto' = 'v1'): void {
    const layout = new JournalLayout(BRIDGED);
    this.#ledgers = new Ledgers(layout.ledgers(this.#journal));
    const warn = (message: string): void => {
      this.said.push(message);
    };
    const options = bridgingOptions({
      present,
      warn,
      findings: new Findings(layout.findings(this.#journal), undefined),
      reach: this.#reach,
      containers: layout.containerLedgers(this.#journal, this.#ledgers),
    });
    const places = Array.from({ length: BRIDGED }, (_, n) => layout.deviceLedger(this.#journal, this.#ledgers, n));
    this.#bridging = new Bridging(places, options);
  }

  /** What every look into the VMM's descriptors ends with. */
  fails: ErrnoName | undefined;

  readonly #reach: Reach = {
    duplicate: (_tid, fd) => {
      if (this.fails !== undefined) throw failed(this.fails);
      const file = this.#files.get(fd);
      return file && new OwnedFd(trySyscall('dup', file.number));
    },
    isGroupDevice: (fd) => this.#ports.has(inode(fd)),
    group: (fd) => this.#groups.get(inode(fd)),
    hasContainer: (fd) => this.#attached.has(inode(fd)),
    container: (fd) => {
      const container = this.#containers.get(inode(fd));
      if (container === undefined) throw failed('ENOTTY');
      return container;
    },
    threaded: (port) => port,
    port: (device) => lazily(device, (fd) => this.#ports.get(inode(fd))),
    map: (_place, _part, size) => ({ bytes: new Uint8Array(size), address: 0 }),
    fdStore: () => ({ put: () => {}, peek: () => undefined, clear: () => {} }),
  };

  /** The VMM gets a descriptor of a new file. */
  #file(name: string): { fd: number; ino: number } {
    const file = createSharedMemory(name, 4096);
    const fd = (this.#next += 1);
    this.#files.set(fd, file);
    return { fd, ino: inode(file.number) };
  }

  openContainer(container = this.container): number {
    const { fd, ino } = this.#file('container');
    this.#containers.set(ino, container);
    return fd;
  }

  openGroup(n: number): number {
    const { fd, ino } = this.#file('group');
    this.#groups.set(ino, `group ${n}`);
    return fd;
  }

  /** The VMM puts a group into a container; the kernel refuses it for what reason it has. */
  setContainer(group: number, container: number, isRefused = false): void {
    const argument = new Uint8Array(new Int32Array([container]).buffer);
    this.#ioctl(group, VFIO_GROUP_SET_CONTAINER, argument);
    const file = this.#files.get(group);
    if (!isRefused && file !== undefined) this.#attached.add(inode(file.number));
  }

  /** The VMM asks a group for a device. */
  getDevice(group: number, { name, log, migrates = true }: HostDevice): number {
    this.#ioctl(group, VFIO_GROUP_GET_DEVICE_FD, Buffer.from(`${name}\0`));
    const { fd, ino } = this.#file('device');
    const port = new BytePort();
    port.answer = (request) => request === 'VFIO_DEVICE_RESET';
    if (migrates) {
      port.features.set(VFIO_DEVICE_FEATURE_MIGRATION, u64(7n));
      port.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
        get: (data) => data.set(vfio_device_feature_mig_state.encode({ device_state: V2.RUNNING, data_fd: -1 })),
      });
    }
    if (log !== undefined) offer(port, log);
    this.#ports.set(ino, port);
    return fd;
  }

  /** The VMM asks what a device is, which is when it is found. */
  getInfo(device: number): void {
    this.#ioctl(device, VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: vfio_device_info.size }));
  }

  /** As a VMM opens devices: into one container, each in its group. */
  open(devices: readonly HostDevice[], container = this.openContainer()): { container: number; devices: number[] } {
    const opened = devices.map((device) => {
      const group = this.openGroup(device.group);
      this.setContainer(group, container);
      const fd = this.getDevice(group, device);
      this.getInfo(fd);
      return fd;
    });
    return { container, devices: opened };
  }

  /** The VMM asks a device whether it logs, as QEMU 8 and later do. */
  probeLog(device: number): void {
    const flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    this.#ioctl(device, VFIO_DEVICE_FEATURE, vfio_device_feature.encode({ argsz: vfio_device_feature.size, flags }));
  }

  reset(device: number): void {
    this.#ioctl(device, VFIO_DEVICE_RESET, new Uint8Array(8));
  }

  close(fd: number): void {
    this.#files.get(fd)?.close();
    this.#files.delete(fd);
  }

  /** START, or STOP: what the VMM gets, from here or from the kernel. */
  control(container: number, flags: number): number {
    const result = this.#ioctl(
      container,
      VFIO_IOMMU_DIRTY_PAGES,
      vfio_iommu_type1_dirty_bitmap.encode({ argsz: vfio_iommu_type1_dirty_bitmap.size, flags }),
    );
    if (result < 0) this.#kernel(container).isLogging = flags === 1;
    return 0;
  }

  /** The pages that the VMM is told; `fromKernel` if that was left to the kernel. */
  dirty(container: number, range: PageRange, change: Partial<Request> = {}): { pages: number[]; fromKernel: boolean } {
    const bits = new PageBits(range);
    const header = vfio_iommu_type1_dirty_bitmap.size;
    const argument = new Uint8Array(header + vfio_iommu_type1_dirty_bitmap_get.size);
    const flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
    vfio_iommu_type1_dirty_bitmap.encode({ argsz: argument.length, flags }, argument);
    vfio_iommu_type1_dirty_bitmap_get.encode(
      {
        iova: BigInt(range.first) * 4096n,
        size: BigInt(range.end - range.first) * 4096n,
        bitmap_pgsize: 4096n,
        bitmap_size: BigInt(bits.bytes.length),
        bitmap_data: BigInt(addressOf(bits.bytes)),
        ...change,
      },
      argument,
      header,
    );
    const fromKernel = this.#ioctl(container, VFIO_IOMMU_DIRTY_PAGES, argument) < 0;
    if (fromKernel) this.#kernel(container).read(bits);
    return { pages: pagesIn(bits), fromKernel };
  }

  #kernel(fd: number): HardwareContainer {
    return this.#reach.container(this.#files.get(fd)?.number ?? -1) as HardwareContainer;
  }

  #ioctl(fd: number, command: number, argument: Uint8Array): number {
    this.#id += 1n;
    const turn = turnOf(selfCall(16, [fd, command, addressOf(argument)], this.#id), this.#ledgers);
    const value = this.#bridging.ioctl(turn, command);
    if (value !== CONTINUE) turn.commit(value, 0); // as serve()
    return value;
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.close();
  }
}

type Request = Parameters<typeof vfio_iommu_type1_dirty_bitmap_get.encode>[0];

function inode(fd: number): number {
  return fstatSync(fd).ino;
}

/** A port on whatever device a handle is of when it is asked something. */
function lazily(device: DeviceHandle, find: (fd: number) => BytePort | undefined): BytePort {
  return new Proxy(new BytePort(), {
    get: (none, key) => {
      const port: unknown = find(device.number) ?? none;
      const value: unknown = Reflect.get(port as object, key);
      return typeof value === 'function' ? (value.bind(port) as unknown) : value;
    },
  });
}

/** A device's log as features, as drivers/vfio/vfio_main.c carries requests to a driver's log_ops. */
function offer(port: BytePort, log: SimLog & DmaLog): void {
  const start: FakeFeature = {
    set: (data, pointed) => {
      const control = vfio_device_feature_dma_logging_control;
      const { num_ranges } = control.decode(data);
      const { decode, size } = vfio_device_feature_dma_logging_range;
      if (pointed === undefined || num_ranges === 0) throw failed('EINVAL');
      const ranges = Array.from({ length: num_ranges }, (_, n) => decode(pointed, n * size));
      new DataView(data.buffer, data.byteOffset).setBigUint64(control.fields.page_size[1], log.start(ranges), true);
    },
  };
  const report: FakeFeature = {
    get: (data, pointed) => {
      if (pointed === undefined) throw new ShimError('ERR_SYSCALL', 'no bitmap', { errno: 'EFAULT' });
      const { iova, length, page_size } = vfio_device_feature_dma_logging_report.decode(data);
      log.readAndClear({ iova, length }, { pageSize: page_size, bits: pointed });
    },
  };
  port.features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, start);
  port.features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, { set: () => log.stop() });
  port.features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, report);
}
