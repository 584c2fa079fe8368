import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../abi/vfio-device.ts';
import { VFIO_REGION_SUBTYPE_MIGRATION } from '../abi/vfio-v1.ts';
import { hasErrno, ShimError } from '../error.ts';
import type { RegionInfo } from '../vfio/client/device-info.ts';
import { pciIdOf } from '../vfio/client/pci-id.ts';
import { migrationRegionType } from '../vfio/server/migration-region.ts';
import type { ByteStore } from '../sim/byte-store.ts';
import { fillTape } from '../recorded/recorded-spec.ts';
import { createSim, newSimMemory, simMemorySizes, type Sim } from '../sim/create.ts';
import { kindOf, type SimSpec } from '../sim/drivers.ts';
import type { RecordedSpec } from '../sim/recorded.ts';
import { fillPattern, SIM_STATE_SIZE, type SimMemory } from '../sim/memory.ts';
import { barSize, pciConfig } from '../sim/pci.ts';
import { MSIX_BAR_SIZE } from '../sim/pci-capabilities.ts';
import { createSharedMemory, SharedStore } from '../sys/memory.ts';
import type { DeviceFacts, Opened } from './opened.ts';

/** A simulated device, and its facts as `vfio-shim run` would show them to a VMM. */
export function openSim(spec: SimSpec, text: string, look: boolean): Opened {
  const memory = look ? noMemory(spec) : memoryFor(spec);
  const sim = createSim(spec, spec.driver === 'recording' ? withTape(spec, memory) : memory);
  return {
    name: spec.driver === 'recording' ? text : text.slice(text.indexOf(':') + 1),
    migratable: sim,
    guestMemory: sim.guest,
    facts: () => simFacts(spec, sim),
    tryDmaLog: () => (sim.protocol === 'v2' && spec.dma > 0 ? 'works' : 'no'),
    close: () => {},
  };
}

function withTape(spec: RecordedSpec, memory: SimMemory): SimMemory {
  const kept = new Uint8Array(spec.tape);
  fillTape(spec, kept);
  return { ...memory, kept };
}

function memoryFor(spec: SimSpec): SimMemory {
  try {
    return kindOf(spec).takesPieces === true ? memoryInPieces(spec) : newSimMemory(spec);
  } catch (error) {
    if (!(error instanceof RangeError) && !hasErrno(error, 'ENOMEM')) throw error;
    throw new ShimError('ERR_DEVICE', `simulated device: cannot get ${spec.size} bytes of memory`, {
      errno: 'ENOMEM',
      cause: error,
    });
  }
}

/** As much as the system has, though Node maps less. */
function memoryInPieces(spec: SimSpec): SimMemory {
  const none = new Uint8Array(0);
  const sizes = simMemorySizes(spec);
  // the descriptors stay open as long as the process, as the device does
  const store = (what: string, size: number): ByteStore => new SharedStore(createSharedMemory(what, size).number, size);
  const bar = store('guest memory', sizes.bar);
  fillPattern(bar, spec.seed);
  const pieces = { bar, kept: store('kept', sizes.kept) };
  return { bar: none, kept: none, section: none, state: new Uint8Array(SIM_STATE_SIZE), pieces };
}

/** Enough for a device that nobody reads: a SPEC may name more memory than there is. */
function noMemory(spec: SimSpec): SimMemory {
  const none = new Uint8Array(0);
  return {
    bar: none,
    state: new Uint8Array(SIM_STATE_SIZE),
    section: new Uint8Array(simMemorySizes(spec).section),
    kept: none,
  };
}

function simFacts(spec: SimSpec, sim: Sim): DeviceFacts {
  const { size } = spec;
  const driver = spec.driver === 'recording' ? spec.of : spec.driver;
  const own = { memory: String(size), ...kindOf(spec).identity(spec) };
  return {
    driver: spec.driver === 'recording' ? `${driver} (recorded)` : `${driver} (simulated)`,
    sysfs: {},
    flags: VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
    regions: regionsOf(spec, sim),
    irqs: VFIO_PCI_NUM_IRQS,
    identity: { bus: 'pci', ...pciIdOf(pciConfig(spec)), driver: `sim:${driver}`, ...own },
  };
}

function regionsOf(spec: SimSpec, sim: Sim): RegionInfo[] {
  const plain = { offset: 0n, type: undefined, sparse: undefined };
  const flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  const mappable = flags | VFIO_REGION_INFO_FLAG_MMAP;
  const own: RegionInfo[] = [
    { ...plain, index: VFIO_PCI_BAR0_REGION_INDEX, size: barSize(spec), flags: mappable },
    { ...plain, index: VFIO_PCI_BAR2_REGION_INDEX, size: MSIX_BAR_SIZE, flags },
    { ...plain, index: VFIO_PCI_CONFIG_REGION_INDEX, size: pciConfig(spec).length, flags },
  ];
  if (sim.protocol === 'v2') return own;
  const { regionSize: size, dataSection, mapped } = sim.device;
  const type = { type: migrationRegionType(sim.protocol), subtype: VFIO_REGION_SUBTYPE_MIGRATION };
  const shown = mapped === undefined ? { flags } : { flags: mappable, sparse: [dataSection] };
  return [...own, { ...plain, index: VFIO_PCI_NUM_REGIONS, size, type, ...shown }];
}
