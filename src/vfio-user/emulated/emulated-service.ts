import {
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
} from '../../abi/vfio-device.ts';
import {
  VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_GET_REGION_IO_FDS,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DEVICE_SET_IRQS,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_MIG_DATA_WRITE,
  vfio_user_region_io_fds,
} from '../../abi/vfio-user.ts';
import { vfio_region_info } from '../../abi/vfio-device.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { emulatedRegions, mapConfig } from '../../interpose/emulated/emulated-regions.ts';
import { EmulatedIrqs, UnmaskWatch } from '../../interpose/emulated/emulated-irqs.ts';
import { emulatedSim } from '../../interpose/emulated/emulated-sim.ts';
import { readMsixBar, writeMsixBar } from '../../interpose/emulated/msix-bar.ts';
import type { PciConfig } from '../../interpose/emulated/pci-config.ts';
import { deviceFiles, filesOf } from '../../interpose/memory/inherited.ts';
import type { PlannedDevice } from '../../interpose/run/plan.ts';
import type { ByteStore } from '../../sim/byte-store.ts';
import { simMemorySizes, type Sim } from '../../sim/create.ts';
import { BAR0_OFFSET } from '../../interpose/run/window.ts';
import { SIM_STATE_SIZE } from '../../sim/memory.ts';
import type { EventFd } from '../../sys/event-fd.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import { createSharedMemory, mapSharedMemory, SharedStore } from '../../sys/memory.ts';
import { DATA_OFFSET } from '../../v1/region.ts';
import type { V1Device } from '../../v1/device.ts';
import type { V2Device } from '../../v2/device.ts';
import { irq_live, irq_setup } from '../../vfio/server/interrupts.ts';
import { MIGRATION_REGION_INDEX, type DeviceHost, type DeviceRegions } from '../../vfio/server/device-requests.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { sleepUntilReady, whenReady } from '../../wait.ts';
import { inBody } from '../server/body.ts';
import type { Client } from '../server/client.ts';
import { answerFeature } from '../server/device-feature.ts';
import { answerInfo, answerSetIrqs, INFO_REQUESTS, regionAnswer } from '../server/device-info.ts';
import { DMA_REQUESTS } from '../server/dma.ts';
import { answerRead, answerWrite, type MigrationData } from '../server/migration-data.ts';
import { answerAccess, REGION_ACCESSES, type RegionMemory } from '../server/region-access.ts';
import type { Recorded } from '../watch/message-recorder.ts';
import type { RecordableService } from '../watch/recorded-service.ts';
import { OFFERED_FDS } from '../wire/connection.ts';
import type { Message } from '../wire/message.ts';
import type { Version } from '../wire/version.ts';
import { ServedDma } from './served-dma.ts';

const NOTHING = new Uint8Array(0);

/** A simulated device as a whole PCI device for clients of vfio-user: the same that `run --device` emulates. */
export class EmulatedService implements RecordableService, DeviceHost<EventFd>, RegionMemory {
  readonly sim: Sim;
  readonly region: V1Device | undefined;
  readonly v2: V2Device | undefined;
  readonly dmaLog: ServedDma['deviceLog'];
  readonly #regions: DeviceRegions;
  /** The files that clients may map, by the index of their region. */
  readonly #mappable: ReadonlyMap<number, number>;
  readonly #bar0: ByteStore;
  readonly #config: PciConfig;
  readonly #irqs: EmulatedIrqs;
  readonly #unmask = new UnmaskWatch();
  readonly #dma: ServedDma;
  readonly #watched: MigratableDevice;
  #client: Client | undefined;

  /** `watch`: the same device, whose calls are recorded. */
  constructor(
    plan: PlannedDevice,
    warn: (message: string) => void,
    watch: (device: MigratableDevice) => MigratableDevice = (device) => device,
  ) {
    const { spec } = plan;
    // SAFETY: the descriptors stay open as long as this process, as the device does
    const files = deviceFiles(filesOf(plan).map(({ name, size }) => createSharedMemory(name, size).number));
    const region = createSharedMemory(`vfio-${plan.name}-region`, DATA_OFFSET + plan.dataSection);
    const { bytes } = mapSharedMemory(region.number, plan.dataSection, DATA_OFFSET);
    const section = bytes.subarray(0, simMemorySizes(spec).section);
    this.#config = mapConfig(plan, files);
    const state = new Uint8Array(SIM_STATE_SIZE);
    this.sim = emulatedSim(plan, files, { state, section, config: this.#config, isFresh: true, warn });
    const { sim } = this;
    this.#irqs = new EmulatedIrqs({
      spec,
      setup: new Uint8Array(irq_setup.size),
      live: new Uint8Array(irq_live.size),
      device: sim,
      config: this.#config,
      unmask: this.#unmask,
    });
    this.#watched = watch(sim);
    if (this.#watched.protocol === 'v1') this.region = this.#watched.device;
    if (this.#watched.protocol === 'v2') this.v2 = this.#watched.device;
    this.#bar0 = new SharedStore(files.device, plan.bar, BAR0_OFFSET);
    this.#regions = { ...emulatedRegions(plan, 0), migration: 0n };
    this.#mappable = new Map([
      [VFIO_PCI_BAR0_REGION_INDEX, files.device],
      ...(this.region?.mapped === undefined ? [] : [[MIGRATION_REGION_INDEX, region.number] as const]),
    ]);
    this.#dma = new ServedDma({
      spec,
      device: sim,
      isBusMaster: () => this.#config.isBusMaster,
      onPage: () => this.#irqs.onDma(),
      warn,
    });
    this.dmaLog = sim.protocol === 'v2' ? this.#dma.deviceLog : undefined;
  }

  get interrupts(): EmulatedIrqs['interrupts'] {
    return this.#irqs.interrupts;
  }

  /** Readable once the client has unmasked an interrupt by an eventfd. */
  get wakeFd(): number {
    return this.#unmask.fd;
  }

  connect(client: Client, _version: Version): Readonly<Record<string, unknown>> {
    this.#client = client;
    this.#dma.connect(client);
    return {
      max_msg_fds: OFFERED_FDS,
      max_data_xfer_size: VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
      pgsizes: PAGE_SIZE,
      migration: { pgsize: PAGE_SIZE },
      write_multiple: true,
    };
  }

  get recorded(): Recorded {
    const { region, v2 } = this;
    const protocol = region === undefined ? v2 && ('v2' as const) : 'v1';
    return { protocol, driver: protocol, region: region && MIGRATION_REGION_INDEX, section: region };
  }

  answer(client: Client, message: Message): void {
    const { body, fds = [] } = this.#dma.during(client, () => this.#answered(client, message));
    client.reply(message, body, fds);
  }

  #answered(client: Client, message: Message): { body: Uint8Array; fds?: readonly number[] } {
    const { command, body } = message;
    if (command === VFIO_USER_DEVICE_GET_REGION_INFO) return this.#regionInfo(message);
    if (INFO_REQUESTS.has(command)) return { body: answerInfo(message, this, this.#regions).answer };
    if (REGION_ACCESSES.has(command)) {
      return { body: answerAccess(message, this, VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE) };
    }
    if (command === VFIO_USER_DIRTY_PAGES && this.v2 !== undefined) throw unknown(command);
    if (DMA_REQUESTS.has(command)) return { body: this.#dma.answer(message) };
    switch (command) {
      case VFIO_USER_DEVICE_SET_IRQS:
        answerSetIrqs(message, this, this.#regions);
        return { body: NOTHING };
      case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        return { body: this.#ioFds(body) };
      case VFIO_USER_DEVICE_RESET:
        this.reset();
        return { body: NOTHING };
      default:
        return { body: this.#migration(client, message) };
    }
  }

  #migration(client: Client, { command, body }: Message): Uint8Array {
    const { v2: device } = this;
    if (device === undefined) throw unknown(command);
    const limit = client.version?.maxDataXferSize ?? 0;
    const data: MigrationData = { device, limit, wait: sleepUntilReady };
    switch (command) {
      case VFIO_USER_DEVICE_FEATURE:
        return answerFeature(body, device, this.dmaLog);
      case VFIO_USER_MIG_DATA_READ:
        return answerRead(body, data);
      case VFIO_USER_MIG_DATA_WRITE:
        answerWrite(body, data);
        return NOTHING;
      default:
        throw unknown(command);
    }
  }

  #regionInfo(message: Message): { body: Uint8Array; fds: readonly number[] } {
    const { body, isWhole } = regionAnswer(answerInfo(message, this, this.#regions));
    const file = this.#mappable.get(vfio_region_info.decode(body).index);
    return { body, fds: file !== undefined && isWhole ? [file] : [] };
  }

  /** No part of a region has a descriptor of its own to be written to. */
  #ioFds(body: Uint8Array): Uint8Array {
    const { index, argsz } = inBody(vfio_user_region_io_fds, body);
    const { size } = vfio_user_region_io_fds;
    if (argsz < size || this.#regions.own[index] === undefined) throw refuse('EINVAL', `REGION_IO_FDS: index ${index}`);
    return vfio_user_region_io_fds.encode({ argsz: size, index });
  }

  readRegion(index: number, offset: number, into: Uint8Array): void {
    if (index === MIGRATION_REGION_INDEX) {
      const region = this.#migrationRegion(offset, into.length);
      whenReady(() => region.read(offset, into), sleepUntilReady);
      return;
    }
    this.#check(index, offset, into.length);
    if (index === VFIO_PCI_BAR0_REGION_INDEX) this.#bar0.read(offset, into);
    else if (index === VFIO_PCI_BAR2_REGION_INDEX) readMsixBar(this.#irqs, offset, into);
    else if (index === VFIO_PCI_CONFIG_REGION_INDEX) this.#config.read(offset, into);
  }

  writeRegion(index: number, offset: number, from: Uint8Array): void {
    if (index === MIGRATION_REGION_INDEX) {
      const region = this.#migrationRegion(offset, from.length);
      whenReady(() => region.write(offset, from), sleepUntilReady);
      this.#dma.settle();
      return;
    }
    this.#check(index, offset, from.length);
    if (index === VFIO_PCI_BAR0_REGION_INDEX) this.#bar0.write(offset, from);
    else if (index === VFIO_PCI_CONFIG_REGION_INDEX) {
      const resets = this.#config.write(offset, from);
      this.#irqs.onConfig();
      if (resets) this.reset();
    } else if (index === VFIO_PCI_BAR2_REGION_INDEX) writeMsixBar(this.#irqs, offset, from);
    this.#dma.settle();
  }

  #migrationRegion(offset: number, length: number): V1Device {
    const { region } = this;
    if (region !== undefined && length <= region.regionSize - offset) return region;
    throw refuse('EINVAL', `migration region: ${length} bytes at ${offset} of ${region?.regionSize ?? 0}`);
  }

  #check(index: number, offset: number, length: number): void {
    const size = this.#regions.own[index]?.size ?? 0;
    if (length > size - offset) throw refuse('EINVAL', `region ${index}: ${length} bytes at ${offset} of ${size}`);
  }

  firstLook(): void {
    // the device is reset when a client goes
  }

  reset(): void {
    this.#watched.device.reset();
    this.#config.wasReset();
    this.#irqs.wasReset();
    this.#dma.abandon();
  }

  work(now: number): number {
    return Math.min(
      this.#irqs.work(now, () => this.#client !== undefined),
      this.#dma.work(now),
    );
  }

  disconnect(): void {
    this.#client = undefined;
    this.#dma.disconnect();
    this.#irqs.opened();
    this.#config.begin();
    this.reset();
  }
}

function unknown(command: number): Error {
  return refuse('EINVAL', `the device has no command ${command}`);
}
