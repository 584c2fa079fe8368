import type { DirtyPages } from '../../bridge/draft-dirty.ts';
import { LARGEST_BUFFER } from '../../bridge/staging.ts';
import type { MigratableDevice, Protocol } from '../../device/migratable.ts';
import type { DeviceEvent } from '../../device/device-event.ts';
import { microseconds, observe, untimed, type DeviceSink } from '../../device/observe.ts';
import type { EventFd } from '../../sys/event-fd.ts';
import { addressOf } from '../../sys/libc.ts';
import { populate } from '../../sys/memory.ts';
import { vfio_device_migration_info_2018 } from '../../abi/vfio-drafts.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import type { ByteStore } from '../../sim/byte-store.ts';
import type { FdStore } from '../../sys/socket.ts';
import type { V1Device } from '../../v1/device.ts';
import { bufferIn } from '../../v1/region.ts';
import { isDraft, type DraftDevice } from '../../v1/drafts/device.ts';
import { DraftAccess } from '../../v1/drafts/registers.ts';
import { V1RegisterAccess } from '../../v1/registers.ts';
import { V1 } from '../../v1/states.ts';
import type { V2Device } from '../../v2/device.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { AccessRecorder } from './access-recorder.ts';
import { DataFds } from './data-fd.ts';
import type { DeviceLog } from '../../vfio/server/device-log.ts';
import type { DeviceHost, Interrupts } from '../../vfio/server/device-requests.ts';
import { PolledDataFd } from './polled-data-fd.ts';
import { makePresentations, type PresentationMemory } from './presentations.ts';
import { forgetFile } from '../trap/file-look.ts';
import { mapSection } from '../trap/map-section.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { FdWindow, Plan } from '../run/plan.ts';
import type { PeerDevice } from './peers.ts';
import { ProgressCounter } from './progress.ts';
import { ReportCounter, statesOf, type DeviceReport, type OwnCounts } from './report.ts';
import { readSection, writeSection, type Section } from './section.ts';
import type { Together } from './together.ts';
import type { Turn } from '../memory/turn.ts';

export interface ServeOptions {
  readonly present: Plan['present'];
  readonly roundTrip: boolean;
  readonly segmentation: Plan['segmentation'];
  readonly offerP2P: boolean;
  readonly countStopCopy: boolean;
  readonly holdPrecopy: number;
  readonly onError: Plan['onError'];
  readonly v1: Plan['v1'];
  readonly dataFds: FdWindow | undefined;
  /** None if devices of one VMM are to have nothing to do with each other. */
  readonly peers: Together | undefined;
  readonly warn: (message: string) => void;
  /** Is told what devices go through, if it is to be logged. */
  readonly log: ((message: string) => void) | undefined;
  /** Makes a line of each access, if there is to be a recording. */
  readonly recorder?: AccessRecorder | undefined;
  /** Notes how far a migration is, if somebody may ask. */
  readonly notesProgress?: boolean;
}

/** The same device, whose calls are counted and recorded. */
export type Watch = (device: MigratableDevice) => MigratableDevice;

/** What is behind a served device: an emulated one, or one of the kernel. */
export interface Driver {
  /** Tells of each call on it. */
  readonly backend: MigratableDevice;
  /**
   * Begins a call on a descriptor of the target; false if that is not this device's. Without one, the call is on something that
   * belongs to the device, as a data fd does; false if the target has closed the device. leave() ends the call.
   */
  enter(tid: number, fd?: number): boolean;
  leave(): void;
  /** Another user gets the device. */
  opened?(): void;
  /** Its user has had the device reset. */
  wasReset?(): void;
  /** What the device is, for the report, and the memory that its guest sees, if that is ours to see. */
  readonly text: string;
  readonly guestMemory: ByteStore | undefined;
  /** For the report too, what the device does by itself. */
  readonly ownCounts?: OwnCounts;
  /** The interrupts that are ours to give. */
  readonly interrupts?: Interrupts<EventFd>;
}

export interface ServedParts {
  readonly name: string;
  readonly ledger: Ledger;
  readonly section: Section;
  readonly memory: PresentationMemory;
  readonly protocol: Protocol;
  /** Which of the two interfaces are ours to show: a migration region, v1's or that of a draft, and the features of v2. */
  readonly shows: { readonly region: boolean; readonly v2: boolean };
  /** Who knows which memory the device has written to. */
  readonly dirty: DirtyPages | undefined;
  /** Where the stand-in of a data fd is kept that has a poll of its own; none if no driver can have one. */
  readonly dataFdStore?: FdStore | undefined;
  /** What an emulated device tells of its DMA by itself, in v2. */
  readonly dmaLog?: DeviceLog | undefined;
}

/** A device as it is served to a VMM: a driver, presented in one protocol, or in v1 and v2, over memory that outlives us. */
export class ServedDevice<D extends Driver = Driver> implements DeviceHost<EventFd> {
  readonly name: string;
  readonly ledger: Ledger;
  readonly section: Section;
  readonly driver: D;
  /** The migration region that the VMM sees, if one is ours to show: of v1, or of a draft. */
  readonly region: V1Device | DraftDevice | undefined;
  /** The features that the VMM sees, if they are ours to show. */
  readonly v2: V2Device | undefined;
  readonly dataFds: DataFds | undefined;
  readonly dmaLog: DeviceLog | undefined;
  readonly #peers: Together | undefined;
  readonly #counter: ReportCounter;
  readonly #recorder: AccessRecorder | undefined;
  readonly #outermost: V1Device | V2Device | DraftDevice;
  readonly #registers = { 4: new Uint8Array(4), 8: new Uint8Array(8) } as const;
  // SAFETY: this object references them as long as calls are served with it, and one thread serves all calls
  readonly #registersAt = { 4: addressOf(this.#registers[4]), 8: addressOf(this.#registers[8]) } as const;
  /** Simulated drivers keep all in memory that a ledger reverts; bridges do not. */
  readonly givesAgain: boolean;
  #isSectionReady = false;
  /** What each register was read as last. */
  readonly #last = new Map<number, Register>();

  constructor(parts: ServedParts, options: ServeOptions, makeDriver: (watch: Watch) => D) {
    const { name, ledger, section, memory, protocol, shows, dirty, dataFdStore } = parts;
    this.name = name;
    this.ledger = ledger;
    this.section = section;
    this.#peers = options.peers;
    this.dmaLog = parts.dmaLog;
    const at = (part: 'report' | 'dataFd' | 'p2p' | 'offeredP2P' | 'progress'): Uint8Array => {
      const { offset, size } = deviceArena[part];
      return ledger.arena.subarray(offset, offset + size);
    };
    const counter = new ReportCounter(at('report'), protocol);
    this.#counter = counter;
    const { log, recorder } = options;
    this.#recorder = recorder;
    const progress =
      options.notesProgress === true
        ? new ProgressCounter(at('progress'), protocol, statesOf(protocol).numbers)
        : undefined;
    const clock = recorder?.clock ?? (progress === undefined ? untimed : microseconds);
    const ofDriver = (event: DeviceEvent): void => {
      progress?.ofDriver(event);
      const entered = counter.ofDriver(event);
      if (entered !== undefined) log?.(`${name}: the device is in ${entered}`);
      recorder?.driver(name, event);
    };
    this.driver = makeDriver((device) => observe(device, ofDriver, clock));
    const peer = (device: V2Device): PeerDevice => {
      const { driver } = this;
      return { name, ledger, device, enter: () => driver.enter(0), leave: () => driver.leave() };
    };
    this.givesAgain = this.driver.guestMemory !== undefined && protocol === 'v2' && !options.roundTrip;
    const presentations = makePresentations(this.driver.backend, memory, {
      ...options,
      dirty,
      together: (device) => options.peers?.drivers.join(peer(device), at('p2p')) ?? device,
      offered: (device) => options.peers?.offered.join(peer(device), at('offeredP2P')) ?? device,
      warn: (message) => options.warn(`${name}: ${message}`),
      watched: (v1) => this.#ofVmm(v1, isDraft(options.present)),
      ...(recorder && { seen: (event) => recorder.seen(event) }),
    });
    this.#outermost = presentations.outermost;
    if (shows.region) this.region = presentations.region;
    if (shows.v2) this.v2 = presentations.v2;
    if (shows.v2 && options.dataFds !== undefined) {
      const polled = dataFdStore && new PolledDataFd(dataFdStore);
      this.dataFds = new DataFds(this, options.dataFds, at('dataFd'), polled);
    }
  }

  /** What the VMM does with what it sees, which is `v1` in v1: it is counted, and recorded. What it sees may also be a draft above that. */
  #ofVmm(v1: V1Device | undefined, isBelow: boolean): DeviceSink {
    const counter = this.#counter;
    const recorder = this.#recorder;
    if (recorder === undefined) return (event) => void counter.ofVmm(event);
    return (event, bytes) => {
      const direction = counter.ofVmm(event);
      if (!isBelow) recorder.seen(event);
      if (event.call === 'data' && bytes !== undefined) {
        if (direction !== undefined) recorder.moved(direction, bytes.length);
        recorder.passed(bytes, event.direction === 'in');
      } else if (event.call === 'register' && direction !== undefined) {
        const count = event.value ?? 0;
        recorder.moved(direction, count);
        const buffer = v1 && bufferIn(v1, counter.counts.data_offset, count);
        if (buffer !== undefined) recorder.passed(buffer, direction === 'in' || isBelow);
      }
    };
  }

  get interrupts(): Interrupts<EventFd> | undefined {
    return this.driver.interrupts;
  }

  /** A thread has opened the device, or may ask it for a state. */
  usedBy(tid: number): void {
    this.#peers?.usedBy(this.ledger, tid);
  }

  /** A user gets the device's fd. */
  opened(turn: Turn): void {
    this.usedBy(turn.call.tid);
    this.#counter.counts.reset_due = 1;
    this.#recorder?.opened(this.name, this.driver.backend.protocol, turn.call.tid);
    this.driver.opened?.();
    turn.touch(this.ledger);
  }

  /** Ends a call on the device, or on something that belongs to it. */
  leave(): void {
    this.dataFds?.showReadiness();
    this.driver.leave();
  }

  /** Gives the target a data fd for a session that has begun; `tell` gets its number there, before the target has it. */
  openDataFd({ call, answers }: Turn, resuming: boolean, tell: (fd: number) => void): void {
    forgetFile();
    this.dataFds?.open(call, answers, resuming, tell);
  }

  /** What a register of 8 bytes was read as last, as far as it is a number of bytes. */
  get lastRead(): number {
    return Number(new DataView(this.#registers[8].buffer).getBigUint64(0, true));
  }

  /**
   * Has the pages of a data section of ours made, once a user begins to save: the kernel makes those that nobody has touched one by one, while
   * the guest stands still. Absent if there is nothing to be done.
   */
  get readySection(): (() => void) | undefined {
    const { isDrivers, address, size } = this.section;
    const [state = 0] = this.#registers[4];
    if (isDrivers || this.#isSectionReady || this.region === undefined || (state & V1.STOP_COPY) === 0)
      return undefined;
    return () => {
      this.#isSectionReady = true;
      populate(address(), Math.min(size, 2 * LARGEST_BUFFER));
    };
  }

  /** What the device can do while the user of its region takes the data that was shown. */
  get readAhead(): (() => void) | undefined {
    const { region } = this;
    return region !== undefined && 'readAhead' in region ? region.readAhead : undefined;
  }

  /** Takes back what the call has changed: a successor would find the same, had this process been killed in its midst. */
  undo(): void {
    this.ledger.revert();
  }

  firstLook(): void {
    if (this.#counter.counts.reset_due === 0) return;
    this.#outermost.reset();
    this.v2?.precopyInfoV2?.(false);
    this.#giveUp();
    this.#counter.counts.reset_due = 0;
  }

  /** What a bridge would still tell an earlier user of the session that went with the reset is not for the new one. */
  #giveUp(): void {
    const outermost = this.#outermost;
    if (!('regionSize' in outermost)) return;
    try {
      if ('draft' in outermost) new DraftAccess(outermost, outermost.draft).write('device_state', V1.RUNNING);
      else new V1RegisterAccess(outermost).setDeviceState(V1.RUNNING);
    } catch {
      // the loss of a resume is told whatever is written, and once
    }
  }

  /** A migration has begun, now or at some time before. */
  get hasLeftRunning(): boolean {
    return this.#counter.counts.states > 1;
  }

  report(): DeviceReport {
    const { text, guestMemory, ownCounts } = this.driver;
    return { ...this.#counter.report(this.name, text, guestMemory), ...ownCounts };
  }

  /** `settle` makes it count, before anything says that the device was reset. */
  reset(settle?: () => void): void {
    this.#outermost.reset();
    settle?.();
    this.driver.wasReset?.();
  }

  /** A call is on the device; `bytes`: what it has read or written of a region of the device's own. */
  counted(bytes?: Uint8Array): void {
    this.#counter.counts.calls += 1;
    this.#recorder?.on(this.name);
    if (bytes !== undefined) this.#recorder?.accessed(bytes);
  }

  /** pread64 of the region. */
  read({ call }: Turn, offset: number): number {
    const count = call.count(2);
    const region = this.#checked(offset, count);
    if (count === 0) return 0;
    if (offset >= region.dataSection.offset) return readSection(call, this.section, region, offset);
    const width = registerWidth(count);
    const bytes = this.#registers[width];
    const last = offset === DEVICE_STATE_AT ? undefined : this.#lastOf(offset, width);
    // a read of these registers acknowledges, or has data read: never for a user who does not get the answer. What is
    // written first is most often the answer already
    if (last !== undefined) call.writeFrom(call.count(1), last.at, width);
    region.read(offset, bytes);
    if (last !== undefined && isSame(last.bytes, bytes)) return width;
    last?.bytes.set(bytes);
    call.writeFrom(call.count(1), this.#registersAt[width], width);
    return width;
  }

  /** The other registers have 8 bytes; what else a target may ask for is refused, and costs no memory. */
  #lastOf(offset: number, width: 4 | 8): Register {
    const key = width === 8 && offset < REGISTERS_END ? offset : -width;
    let register = this.#last.get(key);
    if (register === undefined) {
      const bytes = new Uint8Array(width);
      register = { bytes, at: addressOf(bytes) }; // SAFETY: #last references the bytes, as long as this object lives
      this.#last.set(key, register);
    }
    return register;
  }

  /** pwrite64 of the region. */
  write({ call }: Turn, offset: number): number {
    const count = call.count(2);
    const region = this.#checked(offset, count);
    if (count === 0) return 0;
    if (offset >= region.dataSection.offset) return writeSection(call, this.section, region, offset);
    const width = registerWidth(count);
    call.readTo(call.count(1), this.#registersAt[width], width);
    if (offset === DEVICE_STATE_AT) this.usedBy(call.tid);
    region.write(offset, this.#registers[width]);
    return width;
  }

  /** mmap of the region. */
  map({ call, answers }: Turn, offset: number): number {
    const { region, section } = this;
    if (region?.mapped === undefined)
      throw refuse('EINVAL', 'mmap: the driver does not let its data section be mapped');
    return mapSection(call, answers, section, offset - region.dataSection.offset);
  }

  #checked(offset: number, count: number): V1Device | DraftDevice {
    const { region } = this;
    if (region !== undefined && count <= region.regionSize - offset) return region;
    throw refuse('EINVAL', `migration region: ${count} bytes at ${offset} of ${region?.regionSize ?? 0}`);
  }
}

/** Every generation has device_state there. */
const [, DEVICE_STATE_AT] = vfio_device_migration_info.fields.device_state;
/** No generation has registers behind those of November 2018. */
const REGISTERS_END = vfio_device_migration_info_2018.size;

/** A register's value here, and where that is. */
interface Register {
  readonly bytes: Uint8Array;
  readonly at: number;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  for (let n = 0; n < a.length; n += 1) if (a[n] !== b[n]) return false;
  return true;
}

function registerWidth(count: number): 4 | 8 {
  if (count === 4 || count === 8) return count;
  throw refuse('EINVAL', `migration region: an access of ${count} bytes; registers have 4 or 8`);
}
