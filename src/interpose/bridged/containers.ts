import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../../abi/vfio.ts';
import { hasErrno, ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { withAddress } from '../../sys/libc.ts';
import { dmaLogOf } from '../../vfio/client/port-dma-log.ts';
import type { DirtyContainer } from '../../vfio/dirty-container.ts';
import { PageBits, PageBitsRoom } from '../../vfio/page-bits.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { Turn } from '../memory/turn.ts';
import { messageOf } from '../run/log.ts';
import { BRIDGED } from '../run/plan.ts';
import { markPlace, placeOf } from '../trap/run-mark.ts';
import type { BridgedDevice } from './bridged-driver.ts';
import { oweAll, readDirty, startLogs, stopLogs, type NamedLog } from './dirty-pages.ts';
import { DirtyState, LEFT_ALONE, Opaque, UNSEEN } from '../memory/dirty-state.ts';
import { isHeld } from './held.ts';
import type { Reach } from './reach.ts';

/** What the call itself fails with, or who has made it is gone: nothing comes of it. */
const failsToo = ['EFAULT', 'ENOTTY', 'ESRCH', 'EINTR'] as const;
/** Type1's own limit for the bitmap of a range, in pages. */
const MAX_PAGES = 2 ** 31 - 1;
const HEADER = vfio_iommu_type1_dirty_bitmap.size;

interface ContainersOptions {
  readonly reach: Reach;
  readonly warn: (message: string) => void;
  readonly log: ((message: string) => void) | undefined;
  readonly device: (place: number) => BridgedDevice | undefined;
}

/**
 * The containers of the kernel in which a VMM has its devices: which devices are in one, and what a v1 VMM is told of the pages that
 * they have written to (dirty-pages.ts). A container is told by the mark on its open file, whose places are behind those of devices.
 *
 * Only what puts a group into a container and asks it for a device is seen, and what asks for dirty pages. DMA mappings are made and
 * removed without us.
 */
export class Containers {
  readonly #states: readonly DirtyState[];
  readonly #options: ContainersOptions;
  /** What was said of a container in a place. */
  readonly #said = new Set<string>();

  constructor(ledgers: readonly Ledger[], options: ContainersOptions) {
    this.#states = ledgers.map((ledger) => new DirtyState(ledger));
    this.#options = options;
  }

  /** `VFIO_GROUP_SET_CONTAINER` is about to be carried out: if the group is in no container yet, it will be in that one. */
  joins(turn: Turn): void {
    this.#noting(turn, () => {
      const { call } = turn;
      const { reach } = this.#options;
      using group = reach.duplicate(call.tid, call.s32(0));
      const name = group && reach.group(group.number);
      if (group === undefined || name === undefined || reach.hasContainer(group.number)) return;
      const fd = new DataView(call.readArg(2, 4).buffer).getInt32(0, true);
      using container = reach.duplicate(call.tid, fd);
      if (container === undefined) return;
      call.check(); // whose descriptors these are
      for (const state of this.#used()) {
        if (!state.groups.has(name)) continue;
        turn.touch(state.ledger);
        state.groups.remove(name); // the kernel has not put it there, or has taken it out again
      }
      const state = this.#stateOf(container) ?? this.#place(turn, container, fd);
      if (state === undefined) return;
      turn.touch(state.ledger);
      if (!state.groups.put(name, 0)) state.head.opaque = Math.max(state.head.opaque, Opaque.TOO_MANY);
    });
  }

  /** `VFIO_GROUP_GET_DEVICE_FD` is about to be carried out: the container of that group has a device of that name. */
  asked(turn: Turn, name: string | undefined): void {
    this.#noting(turn, () => {
      const { call } = turn;
      const { reach } = this.#options;
      using group = reach.duplicate(call.tid, call.s32(0));
      const groupName = group && reach.group(group.number);
      if (groupName === undefined) return;
      call.check();
      for (const state of this.#used()) {
        turn.touch(state.ledger);
        if (name !== undefined) drop(state, (device) => device.name === name); // it may have been elsewhere before
        if (!state.groups.has(groupName)) continue;
        const isNoted = name !== undefined && state.devices.put(name, UNSEEN);
        if (!isNoted) state.head.opaque = Math.max(state.head.opaque, Opaque.TOO_MANY);
      }
    });
  }

  /** A device was seen that has been asked for by that name: it got a place, or none as it is not bridged. */
  found(turn: Turn, name: string, place: number = LEFT_ALONE): void {
    for (const state of this.#used()) {
      if (!state.devices.has(name)) continue;
      turn.touch(state.ledger);
      state.devices.put(name, place);
    }
  }

  /** The device in a place has been closed: its log is gone, and so is what it may have known. */
  closed(turn: Turn, place: number): void {
    for (const state of this.#with(turn, place)) {
      drop(state, ({ number }) => number === place);
    }
  }

  /** The device in a place is reset: its driver may forget what it has logged. */
  reset(turn: Turn, place: number): void {
    const states = this.#with(turn, place);
    for (const state of states) oweAll(state);
    if (states.length > 0) turn.settle(); // it is reset, whoever learns of it
  }

  /** The VMM asks the device in a place for its log, and knows of the container what it wants to know. */
  readsLogs(turn: Turn, place: number): void {
    const states = this.#with(turn, place).filter(({ head }) => head.reads_logs === 0);
    for (const { head } of states) head.reads_logs = 1;
    if (states.length > 0) turn.settle(); // most of what is asked of a log is the kernel's
  }

  /** `VFIO_IOMMU_DIRTY_PAGES`, if `fd` is a container that is known here. */
  dirtyPages(turn: Turn, fd: OwnedFd): number {
    const state = this.#stateOf(fd);
    if (state === undefined) return CONTINUE;
    const { call } = turn;
    const { argsz, flags } = vfio_iommu_type1_dirty_bitmap.decode(call.readArg(2, HEADER));
    call.check();
    state.head.tid = call.tid;
    state.head.fd = call.s32(0);
    turn.touch(state.ledger);
    if (argsz < HEADER) return CONTINUE;
    const result = this.#serve(turn, state, flags, argsz, this.#options.reach.container(fd.number));
    if (result === CONTINUE) turn.settle(); // what is the kernel's is not committed as a result
    return result;
  }

  #serve(turn: Turn, state: DirtyState, flags: number, argsz: number, container: DirtyContainer): number {
    if (flags === VFIO_IOMMU_DIRTY_PAGES_FLAG_START) return this.#start(state, container);
    if (flags === VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP) return this.#stop(state);
    if (state.head.logging === 0) return CONTINUE;
    if (flags === VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) return this.#read(turn, state, container, argsz);
    return CONTINUE;
  }

  #start(state: DirtyState, container: DirtyContainer): number {
    const { head } = state;
    if (head.reads_logs !== 0) return CONTINUE;
    const places = this.#devicesOf(state);
    if (typeof places === 'string') {
      this.#once(state, `the container's own log of dirty pages is used: ${places}`, this.#options.log);
      this.#giveUp(state);
      head.started = 1;
      return CONTINUE;
    }
    const bits = places.reduce((all, place) => (all | (1 << place)) >>> 0, 0);
    if (head.logging !== 0 && bits === head.devices) return CONTINUE; // it goes on, as the kernel's does
    try {
      container.start(); // before the logs, as it tells what is mapped
    } catch (error) {
      return leftToKernel(error);
    }
    this.#giveUp(state); // of other devices than these
    const failure = this.#withLogs(places, (logs) => startLogs(state, container, logs));
    head.started = 1;
    head.devices = bits;
    if (failure !== undefined) this.#warnUnused(state, failure);
    else this.#once(state, `dirty pages are those that ${places.length} devices have logged`, this.#options.log);
    return 0;
  }

  #stop(state: DirtyState): number {
    this.#giveUp(state);
    state.head.started = 0;
    return CONTINUE;
  }

  /** Has devices no longer log, as far as they can be reached. */
  #giveUp(state: DirtyState): void {
    if (state.head.logging === 0) return;
    state.head.logging = 0;
    this.#withLogs(placesIn(state.head.devices), (logs) => {
      stopLogs(state, logs);
      return undefined;
    });
  }

  #read(turn: Turn, state: DirtyState, container: DirtyContainer, argsz: number): number {
    const { call } = turn;
    const request = requestOf(call, argsz, container.pageSize);
    if (request === undefined) return CONTINUE; // which the kernel says what is wrong with
    const { first, end, address } = request;
    const answer = answers.bitsOf({ first, end });
    try {
      call.prove(address, answer.bytes.length);
      withAddress(answer.bytes, (at) => call.readTo(address, at, answer.bytes.length)); // what is not mapped is left as it was
      container.read(answer);
    } catch (error) {
      return leftToKernel(error);
    }
    const why = this.#readLogs(state, container, answer);
    if (why !== undefined) this.#warnUnread(state, why);
    try {
      withAddress(answer.bytes, (at) => call.writeFrom(address, at, answer.bytes.length));
    } catch (error) {
      oweAll(state);
      return leftToKernel(error);
    }
    return 0;
  }

  /** Leaves in the container's answer what the devices have logged. Returns why that, or a part of it, was not possible. */
  #readLogs(state: DirtyState, container: DirtyContainer, answer: PageBits): string | undefined {
    const { devices } = state.head;
    const places = this.#devicesOf(state);
    const added = typeof places === 'string' ? places : places.find((place) => (devices & (1 << place)) === 0);
    const failure =
      added === undefined
        ? this.#withLogs(placesIn(devices), (logs) => readDirty(state, container, logs, answer))
        : `${added}: was not there when the logs were started`;
    if (failure !== undefined) oweAll(state);
    return failure;
  }

  /** The places of all devices of a container; or why they are not all known, or cannot all log. */
  #devicesOf(state: DirtyState): number[] | string {
    if (state.head.opaque !== 0) return 'not all of its devices are known';
    const places: number[] = [];
    for (const { name, number } of state.devices.all()) {
      const device = number < 0 ? undefined : this.#options.device(number);
      if (device === undefined) return `${name} is not bridged`;
      if (device.driver.backend.protocol !== 'v2') return `${name} speaks v1`;
      places.push(number);
    }
    return places.length === 0 ? 'it has no devices' : places;
  }

  /** Reaches the devices in these places, and does something with their logs; or returns why one cannot be reached, or does not log. */
  #withLogs(places: readonly number[], use: (logs: readonly NamedLog[]) => string | undefined): string | undefined {
    const entered: BridgedDevice[] = [];
    try {
      const logs: NamedLog[] = [];
      for (const place of places) {
        const device = this.#options.device(place);
        if (device?.driver.enter(device.driver.facts.tid) !== true)
          return `${device?.name ?? 'a device'}: is not reached`;
        entered.push(device);
        const log = dmaLogOf(device.driver.port);
        if (log === undefined) return `${device.name}: does not log DMA`;
        logs.push({ name: device.name, log });
      }
      return use(logs);
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return messageOf(error);
    } finally {
      for (const device of entered) device.driver.leave();
    }
  }

  #warnUnused(state: DirtyState, why: string): void {
    const message = `devices' logs of DMA are not used, so all memory counts as dirty each time: ${why}`;
    this.#once(state, message, this.#options.warn);
  }

  #warnUnread(state: DirtyState, why: string): void {
    const now = state.head.logging === 0 ? 'is not used any more' : 'was started again';
    this.#once(state, `the log of DMA could not be read and ${now}: ${why}`, this.#options.warn);
  }

  #once({ ledger }: DirtyState, message: string, say: ((message: string) => void) | undefined): void {
    const key = `${ledger.index} ${message}`;
    if (this.#said.has(key)) return;
    this.#said.add(key);
    say?.(message);
  }

  /** Notes something of a call that is the kernel's. If that fails, there may be devices in any container that are not known. */
  #noting(turn: Turn, note: () => void): void {
    try {
      note();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      if (failsToo.some((errno) => hasErrno(error, errno))) return;
      for (const { ledger, head } of this.#states) {
        turn.touch(ledger);
        head.opaque = Opaque.UNSEEN;
      }
    }
    turn.settle();
  }

  #used(): DirtyState[] {
    return this.#states.filter(({ head }) => head.used === 1);
  }

  /** The containers that have the device in a place, which are about to change. */
  #with(turn: Turn, place: number): DirtyState[] {
    const having = this.#used().filter(({ devices }) => devices.all().some(({ number }) => number === place));
    for (const { ledger } of having) turn.touch(ledger);
    return having;
  }

  #stateOf(fd: OwnedFd): DirtyState | undefined {
    const state = this.#states[placeOf(fd.number) - BRIDGED];
    return state?.head.used === 1 ? state : undefined;
  }

  /** Gives a container its place; `undefined` if there is none left: its dirty pages are the kernel's business then. */
  #place(turn: Turn, container: OwnedFd, fd: number): DirtyState | undefined {
    const n = this.#states.findIndex((state, at) => state.head.used === 0 || !this.#isOpen(state, at));
    const state = this.#states[n];
    if (state === undefined) return undefined;
    turn.touch(state.ledger);
    state.startAnew();
    state.head.tid = turn.call.tid;
    state.head.fd = fd;
    turn.settle();
    markPlace(container.number, BRIDGED + n); // last: what is marked has its place
    return state;
  }

  #isOpen({ head }: DirtyState, n: number): boolean {
    return isHeld(this.#options.reach, head, BRIDGED + n);
  }
}

/** Forgets devices: their logs are read no more, and what they may have had to tell is owed. */
function drop(
  state: DirtyState,
  isGone: (device: { readonly name: string; readonly number: number }) => boolean,
): void {
  for (const device of state.devices.all().filter(isGone)) {
    state.devices.remove(device.name);
    if (device.number >= 0) state.head.devices &= ~(1 << device.number);
    oweAll(state);
  }
}

/** What a GET_BITMAP asks for; `undefined` if it is nothing that the kernel answers, or nothing for which pages are counted here. */
function requestOf(
  call: Call,
  argsz: number,
  pageSize: bigint,
): { first: number; end: number; address: number } | undefined {
  const { size } = vfio_iommu_type1_dirty_bitmap_get;
  if (argsz < HEADER + size) return undefined;
  const get = vfio_iommu_type1_dirty_bitmap_get.decode(call.readArg(2, HEADER + size), HEADER);
  const isWhole = (get.iova | get.size) % pageSize === 0n && get.bitmap_pgsize === pageSize;
  const pages = get.size / pageSize;
  if (!isWhole || pages === 0n || pages > MAX_PAGES || get.iova + get.size > 2n ** 64n) return undefined;
  const first = Number(get.iova / pageSize);
  const end = first + Number(pages);
  return get.bitmap_size < PageBits.sizeOf({ first, end })
    ? undefined
    : { first, end, address: Number(get.bitmap_data) };
}

/** What goes wrong before anything was done is to go wrong in the kernel, with its own errno. */
function leftToKernel(error: unknown): number {
  if (!(error instanceof ShimError)) throw error;
  return CONTINUE;
}

function placesIn(bits: number): number[] {
  return Array.from({ length: BRIDGED }, (_, place) => place).filter((place) => (bits & (1 << place)) !== 0);
}

const answers = new PageBitsRoom();
