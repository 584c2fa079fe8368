import type { DirtyPages } from '../../bridge/draft-dirty.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { observe, untimed, type DeviceSink } from '../../device/observe.ts';
import { createSim, simMemorySizes } from '../../sim/create.ts';
import { kindOf } from '../../sim/drivers.ts';
import { storeOf, type ByteStore } from '../../sim/byte-store.ts';
import { fillPattern, type SimMemory } from '../../sim/memory.ts';
import { pciConfig } from '../../sim/pci.ts';
import { inodeOfOwn } from '../../sys/file.ts';
import { mapSharedMemory, SharedStore } from '../../sys/memory.ts';
import { isDraft } from '../../v1/drafts/device.ts';
import type { DeviceRegions } from '../../vfio/server/device-requests.ts';
import { emulatedRegions } from './emulated-regions.ts';
import { isFile } from '../trap/file-look.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import { REGION_SPAN, type PlannedDevice } from '../run/plan.ts';
import { ServedDevice, type Driver, type ServeOptions } from '../serve/served-device.ts';

const CONFIG_AT = 7 * REGION_SPAN;

/** Simulated devices write to no memory. */
const noDma: DirtyPages = { begin: () => {}, end: () => {}, readAndClear: () => {} };

export type EmulatedDevice = ServedDevice<EmulatedDriver>;

/** The n-th emulated device, over memory that outlives us. */
export function emulatedDevice(
  plan: PlannedDevice,
  index: number,
  ledger: Ledger,
  files: DeviceFiles,
  options: ServeOptions,
): EmulatedDevice {
  const { dataSection } = plan;
  const map = (fd: number): Uint8Array => mapSharedMemory(fd, dataSection).bytes;
  const section = mapSharedMemory(files.section, dataSection);
  const { protocol } = kindOf(plan.spec);
  const isInside = options.roundTrip || isDraft(options.present);
  const isDrivers = protocol === 'v1' && !isInside;
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
    dirty: noDma,
  };
  // the outermost region has the data section that the VMM maps; a driver's, inside a round trip or a draft, is another
  const innermost = (): Uint8Array => {
    const bytes = protocol !== 'v2' && isInside ? map(files.inner) : section.bytes;
    return protocol === 'v2' ? bytes : bytes.subarray(0, simMemorySizes(plan.spec).section);
  };
  return new ServedDevice(
    parts,
    options,
    (sink) => new EmulatedDriver({ plan, index, files, ledger, section: innermost() }, sink),
  );
}

type Memory = Pick<SimMemory, 'bar' | 'kept' | 'pieces'>;

function mapped(files: DeviceFiles, { bar, kept, spec }: PlannedDevice): Memory {
  const map = (fd: number, size: number): Uint8Array => mapSharedMemory(fd, size).bytes;
  return {
    bar: map(files.device, bar).subarray(0, spec.size),
    kept: kept > 0 ? map(files.kept, kept) : new Uint8Array(0),
  };
}

/** Nothing of it becomes part of this process, however much there is. */
function inPieces(guest: ByteStore, files: DeviceFiles, { kept }: PlannedDevice): Memory {
  const none = new Uint8Array(0);
  return { bar: none, kept: none, pieces: { bar: guest, kept: new SharedStore(files.kept, kept) } };
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

  constructor(
    parts: { plan: PlannedDevice; index: number; files: DeviceFiles; ledger: Ledger; section: Uint8Array },
    sink: DeviceSink,
  ) {
    const { plan, index, files, ledger, section } = parts;
    const { spec } = plan;
    const guest = new SharedStore(files.device, spec.size);
    const memory = kindOf(spec).takesPieces === true ? inPieces(guest, files, plan) : mapped(files, plan);
    if (ledger.isFresh) {
      // through the mapping, if there is one: the pages are in place when the first migration begins
      fillPattern(memory.pieces?.bar ?? storeOf(memory.bar), spec.seed);
      mapSharedMemory(files.device, 4096, CONFIG_AT).bytes.set(pciConfig(spec));
    }
    const { offset, size } = deviceArena.driver;
    const state = ledger.arena.subarray(offset, offset + size);
    this.plan = plan;
    this.regions = emulatedRegions(plan, index);
    this.files = files;
    this.inode = inodeOfOwn(files.device);
    this.text = plan.text;
    this.guestMemory = guest;
    this.backend = observe(createSim(spec, { ...memory, state, section }), sink, untimed);
  }

  enter(tid: number, fd?: number): boolean {
    return fd === undefined || isFile(tid, fd, this.inode);
  }

  leave(): void {
    // nothing was borrowed
  }
}
