import { errnoNumber } from '../../abi/errno.ts';
import { isNotReady, ShimError } from '../../error.ts';
import { processOf } from '../../sys/pidfd.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { V2, v2StateName, type V2State } from '../../v2/states.ts';
import type { Ledger } from '../memory/ledger.ts';
import { p2p_state } from '../memory/p2p-state.ts';
import { messageOf } from '../run/log.ts';

/** So long a device waits for others that are to stop with it, and for others that are to start. Milliseconds. */
const QUIET = 2000;
const HELD = 1000;

/** A device, and how it is reached when another one is served. */
export interface PeerDevice {
  readonly name: string;
  readonly ledger: Ledger;
  readonly device: V2Device;
  /** False if it has been closed. leave() ends what this begins. */
  readonly enter: () => boolean;
  readonly leave: () => void;
}

export interface Peer extends PeerDevice {
  readonly my: ReturnType<typeof p2p_state.view>;
}

export interface PeersOptions {
  readonly commit: (ledgers: readonly Ledger[]) => void;
  readonly warn: (message: string) => void;
  /** A clock that successors share, in milliseconds. */
  readonly clock?: () => number;
  readonly processOf?: (tid: number) => number | undefined;
}

const none: readonly Ledger[] = [];

const monotonic = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** Devices of a run that have to do with each other if they are of one VMM. What that is, their arenas remember. */
export abstract class Peers {
  readonly #peers = new Map<number, Peer>();
  readonly #changed = new Set<Ledger>();
  readonly #options: PeersOptions;
  readonly #processOf: (tid: number) => number | undefined;
  readonly #warned = new Set<string>();
  protected readonly now: () => number;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.now = options.clock ?? monotonic;
    this.#processOf = options.processOf ?? processOf;
  }

  /** The device as its user is to have it. `memory` has `p2p_state.size` bytes. It takes the place of one with the same ledger. */
  join(driver: PeerDevice, memory: Uint8Array): V2Device {
    const peer = { ...driver, my: p2p_state.view(memory) };
    this.#peers.set(driver.ledger.index, peer);
    return new AmongPeers(driver.device, {
      getState: () => this.shown(peer),
      setState: (target) => {
        tellFailure(peer);
        return this.setState(peer, target);
      },
      reset: () => {
        driver.device.reset();
        Object.assign(peer.my, { quiet: 0, held: 0, failed: 0 });
        this.goesOn(peer);
      },
    });
  }

  /** The state that the device's user is shown. */
  protected abstract shown(peer: Peer): V2State;
  protected abstract setState(peer: Peer, target: V2State): V2DataSession | undefined;
  /** The device runs: those that have waited for that need not wait any longer. */
  protected abstract goesOn(peer: Peer): void;
  /** The device has waited long enough. */
  protected abstract overdue(peer: Peer): void;

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
  takeChanged(): readonly Ledger[] {
    if (this.#changed.size === 0) return none; // as after nearly every call
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** Lets devices go on that have waited long enough. Returns in how many milliseconds there is more to do. */
  work(): number {
    let next = Infinity;
    for (const peer of this.#peers.values()) {
      if (this.#left(peer) <= 0) {
        this.overdue(peer);
        this.#options.commit(this.takeChanged());
      }
      next = Math.min(next, this.#left(peer));
    }
    return next;
  }

  #left({ my }: Peer): number {
    if (my.quiet === 0 && my.held === 0) return Infinity;
    return my.since + (my.held === 1 ? HELD : QUIET) - this.now();
  }

  protected get isAlone(): boolean {
    return this.#peers.size === 1;
  }

  protected changes({ ledger }: Peer): void {
    this.#changed.add(ledger);
  }

  /** Takes a device somewhere of which its user knows nothing now. False if it does not go there. */
  protected ask(other: Peer, goal: V2State): boolean {
    try {
      if (!this.#enter(other)) return false;
      other.device.setState(goal);
      return true;
    } catch (error) {
      if (!(error instanceof ShimError) || isNotReady(error)) throw error;
      this.warn(other, `does not enter ${v2StateName(goal)}: ${messageOf(error)}`);
      if (this.#stateOf(other) === V2.ERROR) other.my.failed = errnoNumber('EIO');
      return false;
    } finally {
      other.leave();
    }
  }

  /** The other devices of the same VMM that can be reached, and the states that they show. */
  protected othersOf(peer: Peer): [Peer, V2State][] {
    if (this.isAlone) return [];
    const vmm = this.#processOf(peer.my.tid);
    if (vmm === undefined) return [];
    return [...this.#peers.values()].flatMap((other): [Peer, V2State][] => {
      if (other === peer || this.#processOf(other.my.tid) !== vmm) return [];
      const state = this.look(other);
      return state === undefined ? [] : [[other, state]];
    });
  }

  /** The state that a device shows which is not being served; `undefined` if it was closed, or its state cannot be told. */
  protected look(other: Peer): V2State | undefined {
    if (!this.#enter(other)) return undefined;
    try {
      return this.#stateOf(other);
    } finally {
      other.leave();
    }
  }

  #stateOf(peer: Peer): V2State | undefined {
    try {
      return this.shown(peer);
    } catch (error) {
      if (!(error instanceof ShimError) || isNotReady(error)) throw error;
      return undefined;
    }
  }

  #enter(peer: Peer): boolean {
    try {
      return peer.enter();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return false;
    }
  }

  protected warn({ name }: Peer, what: string): void {
    const message = `${name}: ${what}`;
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#options.warn(message);
  }
}

/** What was done to a device for others has failed: its own next request does, once. */
function tellFailure({ my }: Peer): void {
  if (my.failed === 0) return;
  my.failed = 0;
  throw new ShimError('ERR_DEVICE', 'device_state: the device has failed when it was to stop or start with others', {
    errno: 'EIO',
  });
}

/** A v2 device of which some requests concern others too. */
class AmongPeers implements V2Device {
  readonly migrationFlags: number;
  readonly getState: V2Device['getState'];
  readonly setState: V2Device['setState'];
  readonly reset: V2Device['reset'];
  readonly precopyInfoV2: V2Device['precopyInfoV2'];
  readonly #device: V2Device;

  constructor(device: V2Device, { getState, setState, reset }: Pick<V2Device, 'getState' | 'setState' | 'reset'>) {
    this.migrationFlags = device.migrationFlags;
    this.#device = device;
    this.getState = getState;
    this.setState = setState;
    this.reset = reset;
    this.precopyInfoV2 = device.precopyInfoV2 && ((wanted) => device.precopyInfoV2?.(wanted));
  }

  openSession(): V2DataSession | undefined {
    return this.#device.openSession();
  }

  stopCopyLength(): number {
    return this.#device.stopCopyLength();
  }
}
