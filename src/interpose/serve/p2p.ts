import { errnoNumber } from '../../abi/errno.ts';
import { VFIO_MIGRATION_P2P } from '../../abi/vfio-v2.ts';
import { isNotReady, ShimError } from '../../error.ts';
import { processOf } from '../../sys/pidfd.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { V2, v2StateName, type V2State } from '../../v2/states.ts';
import type { Ledger } from '../memory/ledger.ts';
import { p2p_state } from '../memory/p2p-state.ts';
import { messageOf } from '../run/log.ts';

/*
 * A VMM that knows no P2P states stops its devices one by one, and starts them so: one is saved while another still runs, and may write
 * to it. VMMs that know them take all devices to a P2P state first, in which they begin no transfers and take those of others. It is
 * done here in their place, before and after what a v1 VMM asks for:
 *
 *   - before the first device of a VMM leaves the states in which it runs, the others go from RUNNING to RUNNING_P2P or from PRE_COPY to
 *     PRE_COPY_P2P, of which v1 shows nothing. Their own stop finds them there.
 *   - a device that is to run while others are stopped waits in RUNNING_P2P until these are to run as well.
 *
 * A VMM may mean one device only, so neither lasts longer than a while.
 */

/** So long a device that was quieted waits for its own stop, and one that is held for the others' start. Milliseconds. */
const QUIET = 2000;
const HELD = 1000;

/** A v2 driver, and how it is reached when another device is served. */
interface Driver {
  readonly name: string;
  readonly ledger: Ledger;
  readonly device: V2Device;
  /** False if it has been closed. leave() ends what this begins. */
  readonly enter: () => boolean;
  readonly leave: () => void;
}

interface Peer extends Driver {
  readonly my: ReturnType<typeof p2p_state.view>;
}

interface P2POptions {
  readonly commit: (ledgers: readonly Ledger[]) => void;
  readonly warn: (message: string) => void;
  /** A clock that successors share, in milliseconds. */
  readonly clock?: () => number;
  readonly processOf?: (tid: number) => number | undefined;
}

const monotonic = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** The v2 drivers of a run that v1 VMMs drive, so far as one of them must know of another. */
export class P2P {
  readonly #peers = new Map<number, Peer>();
  readonly #changed = new Set<Ledger>();
  readonly #options: P2POptions;
  readonly #now: () => number;
  readonly #processOf: (tid: number) => number | undefined;
  readonly #warned = new Set<string>();

  constructor(options: P2POptions) {
    this.#options = options;
    this.#now = options.clock ?? monotonic;
    this.#processOf = options.processOf ?? processOf;
  }

  /** The driver as a bridge is to have it. `memory` has `p2p_state.size` bytes. It takes the place of one with the same ledger. */
  join(driver: Driver, memory: Uint8Array): V2Device {
    const peer = { ...driver, my: p2p_state.view(memory) };
    this.#peers.set(driver.ledger.index, peer);
    return new TogetherWithPeers(driver.device, {
      setState: (target) => this.#setState(peer, target),
      reset: () => this.#reset(peer),
    });
  }

  /** The device is no longer there. */
  leave(ledger: Ledger): void {
    this.#peers.delete(ledger.index);
  }

  /** A thread uses the device. */
  usedBy(ledger: Ledger, tid: number): void {
    const peer = this.#peers.get(ledger.index);
    if (peer !== undefined) peer.my.tid = tid;
  }

  /** The ledgers of devices that have changed since this was asked, for the sake of others. */
  takeChanged(): Ledger[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** Lets devices go on that have waited long enough. Returns in how many milliseconds there is more to do. */
  work(): number {
    let next = Infinity;
    for (const peer of this.#peers.values()) {
      const { my } = peer;
      if (my.quiet === 0 && my.held === 0) continue;
      const left = my.since + (my.held === 1 ? HELD : QUIET) - this.#now();
      if (left > 0) next = Math.min(next, left);
      else {
        if (my.quiet !== 0) this.#warn(peer, 'was stopped for another device, and then not by its VMM: it goes on');
        this.#letGo(peer);
        this.#options.commit(this.takeChanged());
      }
    }
    return next;
  }

  #setState(peer: Peer, target: V2State): V2DataSession | undefined {
    const { my, device } = peer;
    if (my.failed !== 0) {
      const { failed } = my;
      my.failed = 0;
      throw new ShimError('ERR_DEVICE', 'device_state: the device failed when it was to enter a P2P state', {
        errno: failed === errnoNumber('EIO') ? 'EIO' : 'ENODEV',
      });
    }
    my.quiet = 0;
    my.held = 0;
    if (this.#peers.size === 1) return device.setState(target);
    const now = device.getState();
    if ((target === V2.STOP || target === V2.STOP_COPY) && !isStopped(now)) return this.#stop(peer, target);
    if (target !== V2.RUNNING) return device.setState(target);
    const begins = now !== V2.RUNNING && now !== V2.PRE_COPY;
    const mustWait = begins && canWait(peer) && this.#othersOf(peer).some(([, state]) => isStopped(state));
    const session = device.setState(mustWait ? V2.RUNNING_P2P : V2.RUNNING);
    if (mustWait) {
      my.held = 1;
      my.since = this.#now();
      return session;
    }
    this.#goesOn(peer);
    return session;
  }

  #reset(peer: Peer): void {
    peer.device.reset();
    peer.my.quiet = 0;
    peer.my.held = 0;
    peer.my.failed = 0;
    this.#goesOn(peer);
  }

  /** A device leaves the states in which it runs: first the others begin nothing any more. */
  #stop(peer: Peer, target: V2State): V2DataSession | undefined {
    const others = this.#othersOf(peer);
    const quiet = others.filter(([other, state]) => this.#quiet(other, state, peer)).map(([other]) => other);
    try {
      return peer.device.setState(target);
    } finally {
      for (const { my } of quiet) my.since = this.#now(); // a stop may take its time
    }
  }

  /** True if the device is quiet on behalf of that one. */
  #quiet(other: Peer, state: V2State, cause: Peer): boolean {
    const { my } = other;
    const goal = quietAs[state];
    if (goal === undefined) return false;
    if (!canWait(other)) {
      this.#warn(other, 'has no P2P state: it may write to other devices that are stopped already');
      return false;
    }
    this.#changed.add(other.ledger);
    if (goal !== state && !this.#ask(other, goal)) return false;
    my.held = 0;
    my.quiet = cause.ledger.index + 1;
    return true;
  }

  /** A device runs: those that were quieted for it go on, and those that have waited for it, if it was the last. */
  #goesOn(peer: Peer): void {
    const others = this.#othersOf(peer);
    const isLast = !others.some(([, state]) => isStopped(state));
    for (const [other] of others) {
      const { my } = other;
      if (my.quiet === peer.ledger.index + 1 || (my.held === 1 && isLast)) this.#letGo(other);
    }
  }

  #letGo(peer: Peer): void {
    const { my, ledger } = peer;
    this.#changed.add(ledger);
    my.quiet = 0;
    my.held = 0;
    if (!this.#enter(peer)) return;
    try {
      const state = stateOf(peer);
      const goal = state === undefined ? undefined : loudAs[state];
      if (goal !== undefined) this.#ask(peer, goal);
    } catch (error) {
      if (!isNotReady(error)) throw error;
      my.held = 1; // it is asked once more
      my.since = this.#now();
    } finally {
      peer.leave();
    }
  }

  /** Takes a device somewhere of which its VMM knows nothing. If that fails, it goes on as if this had not been tried. */
  #ask(other: Peer, goal: V2State): boolean {
    try {
      if (!this.#enter(other)) return false;
      other.device.setState(goal);
      return true;
    } catch (error) {
      if (!(error instanceof ShimError) || isNotReady(error)) throw error;
      this.#warn(other, `does not enter ${v2StateName(goal)}: ${messageOf(error)}`);
      if (stateOf(other) === V2.ERROR) other.my.failed = errnoNumber('EIO');
      return false;
    } finally {
      other.leave();
    }
  }

  /** The other devices of the same VMM that can be reached, and their states. */
  #othersOf(peer: Peer): [Peer, V2State][] {
    const vmm = this.#processOf(peer.my.tid);
    if (vmm === undefined) return [];
    return [...this.#peers.values()].flatMap((other): [Peer, V2State][] => {
      if (other === peer || this.#processOf(other.my.tid) !== vmm || !this.#enter(other)) return [];
      try {
        const state = stateOf(other);
        return state === undefined ? [] : [[other, state]];
      } finally {
        other.leave();
      }
    });
  }

  #enter(peer: Peer): boolean {
    try {
      return peer.enter();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return false;
    }
  }

  #warn({ name }: Peer, what: string): void {
    const message = `${name}: ${what}`;
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#options.warn(message);
  }
}

/** Where a device that runs is quiet. */
const quietAs: Partial<Record<V2State, V2State>> = {
  [V2.RUNNING]: V2.RUNNING_P2P,
  [V2.RUNNING_P2P]: V2.RUNNING_P2P,
  [V2.PRE_COPY]: V2.PRE_COPY_P2P,
  [V2.PRE_COPY_P2P]: V2.PRE_COPY_P2P,
};

/** The opposite. */
const loudAs: Partial<Record<V2State, V2State>> = {
  [V2.RUNNING_P2P]: V2.RUNNING,
  [V2.PRE_COPY_P2P]: V2.PRE_COPY,
};

/** A device in these states may not be written to. */
function isStopped(state: V2State): boolean {
  return state === V2.STOP || state === V2.STOP_COPY || state === V2.RESUMING;
}

function canWait({ device }: Peer): boolean {
  return (device.migrationFlags & VFIO_MIGRATION_P2P) !== 0;
}

function stateOf({ device }: Peer): V2State | undefined {
  try {
    return device.getState();
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    return undefined; // it cannot be told, and is left alone
  }
}

/** A v2 device of which some requests concern others too. */
class TogetherWithPeers implements V2Device {
  readonly migrationFlags: number;
  readonly setState: V2Device['setState'];
  readonly reset: V2Device['reset'];
  readonly precopyInfoV2: V2Device['precopyInfoV2'];
  readonly #device: V2Device;

  constructor(device: V2Device, { setState, reset }: Pick<V2Device, 'setState' | 'reset'>) {
    this.migrationFlags = device.migrationFlags;
    this.#device = device;
    this.setState = setState;
    this.reset = reset;
    this.precopyInfoV2 = device.precopyInfoV2 && ((wanted) => device.precopyInfoV2?.(wanted));
  }

  getState(): V2State {
    return this.#device.getState();
  }

  openSession(): V2DataSession | undefined {
    return this.#device.openSession();
  }

  stopCopyLength(): number {
    return this.#device.stopCopyLength();
  }
}
