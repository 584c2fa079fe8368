import type { MigratableDevice } from '../../device/migratable.ts';
import type { RegionInfo } from '../../vfio/client/device-info.ts';
import { FdSessions } from '../../kernel/fd-sessions.ts';
import { KERNEL_LIVE_SIZE } from '../../kernel/session-state.ts';
import type { DmaLog } from '../../vfio/dma-log.ts';
import { isDraft } from '../../v1/drafts/device.ts';
import { deviceArena } from '../memory/journal.ts';
import { LoggedPages } from '../../vfio/client/logged-pages.ts';
import { dmaLogOf } from '../../vfio/client/port-dma-log.ts';
import { PortV1Device } from '../../vfio/client/port-v1-device.ts';
import { PortV2Device } from '../../vfio/client/port-v2-device.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import type { VfioPort } from '../../vfio/port.ts';
import { V1RegisterAccess } from '../../v1/registers.ts';
import { V1 } from '../../v1/states.ts';
import { V2 } from '../../v2/states.ts';
import { BorrowedFd } from './borrowed-fd.ts';
import { bridgedFacts, bridgedName, kernelState, type BridgedFacts } from './bridged-facts.ts';
import type { Ledger } from '../memory/ledger.ts';
import { partOffset, PARTS_FD, type Part } from '../memory/inherited.ts';
import type { Caller } from '../../vfio/caller.ts';
import type { Reach } from './reach.ts';
import { ServedDevice, type Driver, type ServeOptions, type Watch } from '../serve/served-device.ts';

export interface BridgeOptions extends ServeOptions {
  /** Bytes of the data section of a region that is added. */
  readonly dataSection: number;
  readonly reach: Reach;
  /** On whose behalf devices are accessed now. */
  readonly caller: () => Caller;
  /** Whether there is more than one device. */
  readonly hasOthers: () => boolean;
}

export type BridgedDevice = ServedDevice<BridgedDriver>;

/** The device of which a ledger has the facts; its place is the mark of its open file. */
export function bridgedDevice(place: number, ledger: Ledger, options: BridgeOptions): BridgedDevice {
  const facts = bridgedFacts(ledger);
  const isV2 = facts.flags !== 0;
  const { present, roundTrip } = options;
  const hasDraft = isDraft(present);
  const size = sectionSize(facts, options);
  const map = (part: Part): { bytes: Uint8Array; address: number } => options.reach.map(place, part, size);
  let mapped: { bytes: Uint8Array; address: number } | undefined;
  const section = (): { bytes: Uint8Array; address: number } => (mapped ??= map('section'));
  const parts = {
    name: bridgedName(ledger),
    ledger,
    section: {
      fd: PARTS_FD,
      offset: partOffset(place, 'section'),
      size,
      address: () => section().address,
      isDrivers: false,
    },
    memory: {
      section: () => section().bytes,
      inner: () => map('inner').bytes,
      carry: () => map('carry').bytes,
      carryOuter: () => map('carryOuter').bytes,
      twin: () => map('twin').bytes,
      arena: ledger.arena,
      live: isV2 ? undefined : ledger.live,
    },
    protocol: isV2 ? ('v2' as const) : ('v1' as const),
    // what the driver speaks itself is left to it, but for the features of a v2 driver in a round trip
    shows: {
      region: hasDraft || (isV2 && present !== 'v2'),
      v2: (!isV2 || roundTrip) && (present === 'v2' || present === 'auto'),
    },
    dirty: isV2 ? loggedPages(ledger, () => dmaLogOf(device.driver.port)) : undefined,
  };
  const device: BridgedDevice = new ServedDevice(
    parts,
    options,
    (watch) => new BridgedDriver(place, ledger, watch, options),
  );
  return device;
}

/** Bytes of the data section that the VMM sees, or that the bridge works with: a draft's holds any buffer of a v1 driver. */
function sectionSize({ flags, section_size }: BridgedFacts, { present, dataSection }: BridgeOptions): number {
  if (flags !== 0) return dataSection;
  return isDraft(present) ? Math.max(dataSection, Math.ceil(section_size / 4096) * 4096) : section_size;
}

/** The live memory of a ledger has room behind what the sessions have there. */
function loggedPages({ arena, live }: Ledger, find: () => DmaLog | undefined): LoggedPages {
  const { offset, size } = deviceArena.loggedPages;
  return new LoggedPages(find, arena.subarray(offset, offset + size), live.subarray(KERNEL_LIVE_SIZE));
}

/** A driver of the kernel, reached through the target's own descriptor. */
export class BridgedDriver implements Driver {
  readonly place: number;
  readonly facts: BridgedFacts;
  readonly backend: MigratableDevice;
  readonly text: string;
  readonly guestMemory = undefined;
  readonly borrowed: BorrowedFd;
  readonly port: VfioPort;
  readonly fdStore: ReturnType<Reach['fdStore']>;
  /** `undefined` for a v1 driver. */
  readonly #sessions: FdSessions | undefined;
  #inherited = false;

  constructor(place: number, ledger: Ledger, watch: Watch, options: BridgeOptions) {
    const name = bridgedName(ledger);
    this.place = place;
    this.facts = bridgedFacts(ledger);
    this.borrowed = new BorrowedFd(place, options.reach);
    this.fdStore = options.reach.fdStore(place);
    this.text = `vfio:${name}`;
    const { flags } = this.facts;
    if (flags === 0) {
      const port = options.reach.port(this.borrowed);
      // the VMM of a draft has one thread, as one of v1
      this.port = isDraft(options.present) ? port : options.reach.threaded(port, this.borrowed, options);
      this.backend = watch({ protocol: 'v1', device: new PortV1Device(this.port, regionOf(this.facts), false) });
      return;
    }
    const { fdStore } = this;
    this.#sessions = new FdSessions({
      state: kernelState(ledger),
      live: ledger.live,
      store: {
        put: (session, fd) => fdStore.put(session, fd),
        take: () => {
          const kept = fdStore.peek();
          return kept === undefined ? undefined : { session: kept.number, fd: kept.fd };
        },
        clear: () => fdStore.clear(),
      },
    });
    this.port = options.reach.port(this.borrowed, this.#sessions);
    this.backend = watch({ protocol: 'v2', device: new PortV2Device(this.port, flags) });
  }

  enter(tid: number, fd?: number): boolean {
    const { facts, borrowed } = this;
    if (!borrowed.borrow(fd === undefined ? facts.tid : tid, fd ?? facts.fd)) return false;
    if (fd !== undefined) this.#usedBy(tid, fd);
    this.#takeOver();
    return true;
  }

  /** As enter(), with a duplicate that somebody has made, and that leave() closes. */
  lend(tid: number, fd: number, own: OwnedFd): void {
    this.borrowed.lend(tid, fd, own);
    this.#usedBy(tid, fd);
    this.#takeOver();
  }

  leave(): void {
    this.borrowed.giveBack();
  }

  /** The device is new to us: a state that a dead VMM left behind must not be met. */
  begin(warn: (message: string) => void): void {
    const { backend, text } = this;
    const isRunning =
      backend.protocol === 'v2'
        ? backend.device.getState() === V2.RUNNING
        : new V1RegisterAccess(backend.device).deviceState() === V1.RUNNING;
    if (isRunning) return;
    warn(`${text}: an earlier user left it in a state other than RUNNING, it is reset`);
    backend.device.reset();
  }

  /** This process took over from another, which may have been killed in the middle of something. */
  inherit(): void {
    this.#inherited = true;
  }

  #takeOver(): void {
    if (!this.#inherited) return;
    this.#inherited = false;
    if (this.backend.protocol === 'v2') this.#sessions?.abandonLost(this.backend.device);
  }

  #usedBy(tid: number, fd: number): void {
    this.facts.tid = tid;
    this.facts.fd = fd;
  }
}

function regionOf(facts: BridgedFacts): RegionInfo {
  return {
    index: facts.region,
    flags: facts.region_flags,
    size: facts.region_size,
    offset: facts.region_offset,
    type: undefined,
    sparse: facts.section_size > 0 ? [{ offset: facts.section_offset, size: facts.section_size }] : undefined,
  };
}
