import type { DirtyPages } from '../../bridge/draft-dirty.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { simMemorySizes, type Sim } from '../../sim/create.ts';
import { kindOf } from '../../sim/drivers.ts';
import type { ByteStore } from '../../sim/byte-store.ts';
import { inodeOfOwn } from '../../sys/file.ts';
import { mapSharedMemory } from '../../sys/memory.ts';
import type { FdStore } from '../../sys/socket.ts';
import { isDraft } from '../../v1/drafts/device.ts';
import type { DeviceRegions } from '../../vfio/server/device-requests.ts';
import { EmulatedDma, type DmaParts } from './emulated-dma.ts';
import { EmulatedIrqs, type EventFdShelf, type UnmaskWatch } from './emulated-irqs.ts';
import { emulatedRegions, mapConfig } from './emulated-regions.ts';
import { emulatedSim } from './emulated-sim.ts';
import type { MappedProcesses } from './mapped-processes.ts';
import type { PciConfig } from './pci-config.ts';
import { isFile } from '../trap/file-look.ts';
import { DMA_MEMORY_SIZE, dmaMemory } from '../memory/dma-memory.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import type { PlannedDevice } from '../run/plan.ts';
import type { OwnCounts } from '../serve/report.ts';
import { ServedDevice, type Driver, type ServeOptions, type Watch } from '../serve/served-device.ts';

/** Of a device that writes to no memory. */
const noDma: DirtyPages = { begin: () => {}, end: () => {}, readAndClear: () => {} };

export type EmulatedDevice = ServedDevice<EmulatedDriver>;

/** What an emulated device lies in, which outlives us, and who has mapped memory for it. */
interface EmulatedParts {
  readonly ledger: Ledger;
  readonly files: DeviceFiles;
  readonly dataFdStore: FdStore | undefined;
  readonly eventFdShelf: EventFdShelf | undefined;
  readonly processes: MappedProcesses;
  readonly unmask: UnmaskWatch;
}

/** The n-th emulated device. */
export function emulatedDevice(
  plan: PlannedDevice,
  index: number,
  { ledger, files, dataFdStore, eventFdShelf, processes, unmask }: EmulatedParts,
  options: ServeOptions,
): EmulatedDevice {
  const { dataSection } = plan;
  const map = (fd: number): Uint8Array => mapSharedMemory(fd, dataSection).bytes;
  const section = mapSharedMemory(files.section, dataSection);
  const { protocol } = kindOf(plan.spec);
  const isInside = options.roundTrip || isDraft(options.present);
  const isDrivers = protocol === 'v1' && !isInside;
  // the outermost region has the data section that the VMM maps; a driver's, inside a round trip or a draft, is another
  const innermost = (): Uint8Array => {
    const bytes = protocol !== 'v2' && isInside ? map(files.inner) : section.bytes;
    return protocol === 'v2' ? bytes : bytes.subarray(0, simMemorySizes(plan.spec).section);
  };
  const config = mapConfig(plan, files);
  const sim = emulatedSim(plan, files, {
    state: partOf(ledger, 'driver'),
    section: innermost(),
    config,
    isFresh: ledger.isFresh,
    warn: options.warn,
  });
  const irqs = new EmulatedIrqs({
    spec: plan.spec,
    setup: partOf(ledger, 'interrupts'),
    live: ledger.live,
    device: sim,
    config,
    shelf: eventFdShelf,
    unmask,
  });
  const dma = makeDma(plan, index, ledger, files, { sim, config, irqs, processes, warn: options.warn });
  const parts = {
    name: plan.name,
    ledger,
    section: { fd: files.section, offset: 0, size: dataSection, address: () => section.address, isDrivers },
    memory: {
      section: () => section.bytes,
      inner: () => map(files.inner),
      carry: () => map(files.carry),
      carryOuter: () => map(files.carryOuter),
      twin: () => map(files.twin),
      arena: ledger.arena,
      live: undefined, // a simulated driver's own state is in the arena
    },
    protocol,
    shows: { region: options.present !== 'v2', v2: options.present === 'v2' || options.present === 'auto' },
    dirty: dma?.dirtyPages ?? noDma,
    dmaLog: protocol === 'v2' ? dma?.deviceLog : undefined,
    dataFdStore,
  };
  return new ServedDevice(
    parts,
    options,
    (watch) => new EmulatedDriver({ plan, index, files, sim, config, dma, irqs }, watch),
  );
}

/** Who has to do with a device's DMA. */
interface DmaActors {
  readonly sim: Sim;
  readonly config: PciConfig;
  readonly irqs: EmulatedIrqs;
}

function partOf(ledger: Ledger, part: 'driver' | 'dmaLog' | 'interrupts'): Uint8Array {
  const { offset, size } = deviceArena[part];
  return ledger.arena.subarray(offset, offset + size);
}

function makeDma(
  { name, spec }: PlannedDevice,
  place: number,
  ledger: Ledger,
  files: DeviceFiles,
  { sim, config, irqs, processes, warn }: Pick<DmaParts, 'processes' | 'warn'> & DmaActors,
): EmulatedDma | undefined {
  if (spec.dma === 0) return undefined;
  return new EmulatedDma({
    spec,
    place,
    memory: dmaMemory(mapSharedMemory(files.dma, DMA_MEMORY_SIZE).bytes),
    arena: partOf(ledger, 'dmaLog'),
    device: sim,
    isBusMaster: () => config.isBusMaster,
    onPage: () => irqs.onDma(),
    processes,
    warn: (message) => warn(`${name}: ${message}`),
  });
}

/** A simulated driver, and the files by which the target knows its device. */
export class EmulatedDriver implements Driver {
  readonly plan: PlannedDevice;
  readonly regions: DeviceRegions;
  readonly files: DeviceFiles;
  readonly backend: MigratableDevice;
  readonly text: string;
  readonly guestMemory: ByteStore;
  /** Of the device's file. */
  readonly inode: number;

  /** The device itself: to ask for its state is nobody's call. */
  readonly sim: MigratableDevice;
  readonly dma: EmulatedDma | undefined;
  readonly config: PciConfig;
  readonly irqs: EmulatedIrqs;

  constructor(
    parts: {
      plan: PlannedDevice;
      index: number;
      files: DeviceFiles;
      sim: Sim;
      config: PciConfig;
      dma: EmulatedDma | undefined;
      irqs: EmulatedIrqs;
    },
    watch: Watch,
  ) {
    const { plan, index, files, sim, config, dma, irqs } = parts;
    this.plan = plan;
    this.regions = emulatedRegions(plan, index);
    this.files = files;
    this.inode = inodeOfOwn(files.device);
    this.text = plan.text;
    this.guestMemory = sim.guest;
    this.sim = sim;
    this.dma = dma;
    this.config = config;
    this.irqs = irqs;
    this.backend = watch(sim);
  }

  get ownCounts(): OwnCounts {
    return { ...this.dma?.peerCounts, interrupts: this.irqs.raised };
  }

  get interrupts(): EmulatedIrqs['interrupts'] {
    return this.irqs.interrupts;
  }

  /** As vfio-pci does when a device is opened, which knows nothing of what an earlier user has set up (vfio_pci_core_enable, vfio_config_init). */
  opened(): void {
    this.config.begin();
    this.config.enable();
    this.irqs.opened();
    this.dma?.opened();
  }

  wasReset(): void {
    this.config.wasReset();
    this.irqs.wasReset();
  }

  enter(tid: number, fd?: number): boolean {
    return fd === undefined || isFile(tid, fd, this.inode);
  }

  leave(): void {
    // nothing was borrowed
  }
}
