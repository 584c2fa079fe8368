import { presentV1 } from '../bridge/present-v1.ts';
import { presentV2 } from '../bridge/present-v2.ts';
import type { BridgeEvents } from '../bridge/options.ts';
import { createSim, type Sim } from '../sim/create.ts';
import { fillPattern, simMemorySizes } from '../sim/memory.ts';
import { pciConfig } from '../sim/pci.ts';
import { addressOf } from '../sys/libc.ts';
import { mapSharedMemory } from '../sys/memory.ts';
import { isSameFile } from '../sys/process.ts';
import { readProcessMemoryTo, writeProcessMemoryFrom } from '../sys/process-memory.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import type { V1Device } from '../v1/device.ts';
import type { V2Device } from '../v2/device.ts';
import { PREPARED, refuse, type Call } from './call.ts';
import { DataFds, type DataFdDevice } from './data-fd.ts';
import type { DeviceHost } from './device.ts';
import { DEVICE_ARENA_SIZE, deviceArena, Ledger } from './journal.ts';
import { mappedBar, REGION_SPAN, type FdWindow, type Plan, type PlannedDevice } from './plan.ts';
import { ReportCounter, type DeviceReport } from './report.ts';
import { regionOffset } from './window.ts';

/** The descriptors of a device's shared memory. */
export interface DeviceFiles {
  readonly device: number;
  readonly section: number;
  readonly sent: number;
  readonly group: number;
  readonly inner: number;
  readonly carry: number;
  readonly carryOuter: number;
}

export interface ServeOptions {
  readonly present: Plan['present'];
  readonly roundTrip: boolean;
  readonly segmentation: Plan['segmentation'];
  readonly onError: Plan['onError'];
  readonly dataFds: FdWindow | undefined;
  readonly warn: (message: string) => void;
}

const CONFIG_AT = 7 * REGION_SPAN;
/** How long an answer about which file a descriptor of the target is may be used again, in milliseconds. */
export const ANSWER_HOLDS = 1;

/**
 * An emulated device as it is served to a VMM: a simulated driver over memory that outlives us, presented in one protocol
 * or in both.
 */
export class ServedDevice implements DeviceHost, DataFdDevice {
  readonly plan: PlannedDevice;
  readonly files: DeviceFiles;
  readonly ledger: Ledger;
  /** The region that the VMM sees, where v1 is presented. */
  readonly v1: V1Device | undefined;
  /** The features that the VMM sees, where v2 is presented. */
  readonly v2: V2Device | undefined;
  readonly dataFds: DataFds | undefined;
  readonly #sim: Sim;
  readonly #counter: ReportCounter;
  readonly #state = new Uint8Array(4);
  readonly #lastUser = { tid: 0, fd: -1, until: 0 };
  readonly #sectionAt: number;
  /** The page of the device's file from which the kernel reads what the target asks for. */
  readonly #shownRegisters: Uint8Array;
  readonly #shownViews = new Map<number, Uint8Array>();
  readonly #registers = { 4: new Uint8Array(4), 8: new Uint8Array(8) } as const;
  readonly #registersAt = { 4: addressOf(this.#registers[4]), 8: addressOf(this.#registers[8]) } as const;
  /** Buffers are counted where the VMM sees them: by the region's events, or by reads and writes of the data fd. */
  #countsRegion = true;

  constructor(plan: PlannedDevice, index: number, files: DeviceFiles, journal: Uint8Array, options: ServeOptions) {
    this.plan = plan;
    this.files = files;
    this.ledger = new Ledger(journal, DEVICE_ARENA_SIZE);
    const { arena } = this.ledger;
    const part = ({ offset, size }: { offset: number; size: number }): Uint8Array =>
      arena.subarray(offset, offset + size);
    const map = (fd: number): Uint8Array => mapSharedMemory(fd, plan.dataSection).bytes;
    const { spec } = plan;
    const bar = mapSharedMemory(files.device, mappedBar(plan)).bytes.subarray(0, spec.size);
    const section = mapSharedMemory(files.section, plan.dataSection);
    const sent = simMemorySizes(spec).sent > 0 ? mapSharedMemory(files.sent, spec.size).bytes : new Uint8Array(0);
    this.#sectionAt = section.address;
    this.#shownRegisters = mapSharedMemory(files.device, DATA_OFFSET, Number(regionOffset(index))).bytes;
    if (this.ledger.isFresh) {
      fillPattern(bar, spec.seed);
      mapSharedMemory(files.device, 4096, CONFIG_AT).bytes.set(pciConfig(spec));
    }
    this.#counter = new ReportCounter(part(deviceArena.report), spec.driver === 'vendor-v1' ? 'v1' : 'v2');
    const warnings: BridgeEvents = { warning: (message) => options.warn(`${plan.name}: ${message}`) };
    const events: BridgeEvents = {
      ...warnings,
      moved: (direction, bytes) => {
        if (this.#countsRegion) this.moved(direction, bytes);
      },
    };

    // The outermost v1 device has the data section that the VMM maps; one inside a round trip has its own.
    const innermost = spec.driver === 'vendor-v1' && options.roundTrip ? map(files.inner) : section.bytes;
    const memory = { bar, state: part(deviceArena.sim), section: innermost, sent };
    const sim = createSim(spec, memory, options.roundTrip ? {} : events);
    const toV1 = (device: V2Device, dataSection: Uint8Array, state: Uint8Array): V1Device =>
      presentV1(device, {
        dataSection,
        state,
        onError: options.onError,
        events: dataSection === section.bytes ? events : warnings, // what is counted is what the VMM moves
      });
    const toV2 = (device: V1Device, carry: Uint8Array, state: Uint8Array): V2Device =>
      presentV2(device, { carry, state, segmentation: options.segmentation, events: warnings });
    const [inner, outer] = [part(deviceArena.presentV1), part(deviceArena.outer)];
    const asV2 = part(deviceArena.presentV2);
    let fronts: { v1: V1Device; v2: V2Device };
    if (sim.protocol === 'v2') {
      const { device } = sim;
      const v2 = options.roundTrip ? toV2(toV1(device, map(files.inner), inner), map(files.carry), asV2) : device;
      fronts = { v2, v1: toV1(v2, section.bytes, outer) };
    } else {
      const { device } = sim;
      const v1 = options.roundTrip ? toV1(toV2(device, map(files.carry), asV2), section.bytes, inner) : device;
      const state = options.roundTrip ? outer : asV2;
      fronts = { v1, v2: toV2(v1, map(options.roundTrip ? files.carryOuter : files.carry), state) };
    }
    this.#sim = sim;
    if (options.present !== 'v2') this.v1 = fronts.v1;
    if (options.present !== 'v1') this.v2 = fronts.v2;
    if (options.dataFds !== undefined) this.dataFds = new DataFds(this, options.dataFds, part(deviceArena.dataFd));
  }

  /**
   * True where a descriptor of the target is this device. An answer holds for a millisecond: the target could only deceive
   * itself by putting another file in its place, and the question costs as much as the rest of the call.
   */
  isOpenAs(tid: number, fd: number): boolean {
    const now = performance.now();
    const last = this.#lastUser;
    if (tid === last.tid && fd === last.fd && now < last.until) return true;
    if (!isSameFile(tid, fd, this.files.device)) return false;
    last.tid = tid;
    last.fd = fd;
    last.until = now + ANSWER_HOLDS;
    return true;
  }

  /** A user got the device's fd. */
  opened(): void {
    this.#counter.counts.reset_due = 1;
    this.ledger.commit();
  }

  firstLook(): void {
    if (this.#counter.counts.reset_due === 0) return;
    this.reset();
    this.#counter.counts.reset_due = 0;
  }

  reset(): void {
    this.v1?.reset();
    this.v2?.reset();
  }

  moved(direction: 'out' | 'in', bytes: number): void {
    this.#counter.moved(direction, bytes);
  }

  /** Serves a call on the device's features or data fd. */
  onDataFd(serve: () => number): number {
    this.#countsRegion = false;
    try {
      return serve();
    } finally {
      this.#countsRegion = true;
    }
  }

  /** Notes the state that the device's own driver is in after a call that may have changed it. */
  noteState(): void {
    const sim = this.#sim;
    if (sim.protocol === 'v2') this.#counter.state(sim.device.getState());
    else {
      sim.device.read(0, this.#state);
      this.#counter.state(this.#state[0] ?? 0);
    }
  }

  counted(): void {
    this.#counter.counts.calls += 1;
  }

  /** pread64 of the region. */
  read(call: Call, offset: number): number {
    const count = call.count(2);
    const v1 = this.#checked(offset, count);
    if (count === 0) return 0;
    if (offset >= DATA_OFFSET) {
      writeProcessMemoryFrom(call.tid, call.count(1), this.#sectionAt + offset - DATA_OFFSET, count);
      return count;
    }
    const width = registerWidth(count);
    v1.read(offset, this.#shownAt(offset, width));
    return PREPARED;
  }

  #shownAt(offset: number, width: number): Uint8Array {
    const key = offset * 16 + width;
    let bytes = this.#shownViews.get(key);
    if (bytes === undefined) {
      bytes = this.#shownRegisters.subarray(offset, offset + width);
      if (offset < 32) this.#shownViews.set(key, bytes); // there are no others, whatever the target asks for
    }
    return bytes;
  }

  /** pwrite64 of the region. */
  write(call: Call, offset: number): number {
    const count = call.count(2);
    const v1 = this.#checked(offset, count);
    if (count === 0) return 0;
    if (offset >= DATA_OFFSET) {
      readProcessMemoryTo(call.tid, call.count(1), this.#sectionAt + offset - DATA_OFFSET, count);
      return count;
    }
    const width = registerWidth(count);
    readProcessMemoryTo(call.tid, call.count(1), this.#registersAt[width], width);
    v1.write(offset, this.#registers[width]);
    this.noteState();
    return width;
  }

  report(): DeviceReport {
    return this.#counter.report(this.plan, this.#sim.bar);
  }

  #checked(offset: number, count: number): V1Device {
    const { v1 } = this;
    if (v1 !== undefined && count <= v1.regionSize - offset) return v1;
    throw refuse('EINVAL', `migration region: ${count} bytes at ${offset} of ${v1?.regionSize ?? 0}`);
  }
}

function registerWidth(count: number): 4 | 8 {
  if (count === 4 || count === 8) return count;
  throw refuse('EINVAL', `migration region: an access of ${count} bytes; registers have 4 or 8`);
}
