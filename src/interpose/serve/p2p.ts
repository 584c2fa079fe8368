import { VFIO_MIGRATION_P2P } from '../../abi/vfio-v2.ts';
import { isNotReady } from '../../error.ts';
import type { V2DataSession } from '../../v2/device.ts';
import { V2, type V2State } from '../../v2/states.ts';
import { Peers, type Peer } from './peers.ts';

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

/** The v2 drivers of a run that v1 VMMs drive. `quiet` is 1 more than the number of the ledger of the device for which one is quiet. */
export class P2P extends Peers {
  protected shown({ device }: Peer): V2State {
    return device.getState();
  }

  protected setState(peer: Peer, target: V2State): V2DataSession | undefined {
    const { my, device } = peer;
    my.quiet = 0;
    my.held = 0;
    if (this.isAlone) return device.setState(target);
    const now = device.getState();
    if ((target === V2.STOP || target === V2.STOP_COPY) && !isStopped(now)) return this.#stop(peer, target);
    if (target !== V2.RUNNING) return device.setState(target);
    const begins = now !== V2.RUNNING && now !== V2.PRE_COPY;
    const mustWait = begins && canWait(peer) && this.othersOf(peer).some(([, state]) => isStopped(state));
    const session = device.setState(mustWait ? V2.RUNNING_P2P : V2.RUNNING);
    if (mustWait) {
      my.held = 1;
      my.since = this.now();
      return session;
    }
    this.goesOn(peer);
    return session;
  }

  /** A device leaves the states in which it runs: first the others begin nothing any more. */
  #stop(peer: Peer, target: V2State): V2DataSession | undefined {
    const others = this.othersOf(peer);
    const quiet = others.filter(([other, state]) => this.#quiet(other, state, peer)).map(([other]) => other);
    try {
      return peer.device.setState(target);
    } finally {
      for (const { my } of quiet) my.since = this.now(); // a stop may take its time
    }
  }

  /** True if the device is quiet on behalf of that one. */
  #quiet(other: Peer, state: V2State, cause: Peer): boolean {
    const { my } = other;
    const goal = quietAs[state];
    if (goal === undefined) return false;
    if (!canWait(other)) {
      this.warn(other, 'has no P2P state: it may write to other devices that are stopped already');
      return false;
    }
    this.changes(other);
    if (goal !== state && !this.ask(other, goal)) return false;
    my.held = 0;
    my.quiet = cause.ledger.index + 1;
    return true;
  }

  /** Those that were quieted for this device go on, and those that have waited for it, if it was the last. */
  protected goesOn(peer: Peer): void {
    const others = this.othersOf(peer);
    const isLast = !others.some(([, state]) => isStopped(state));
    for (const [other] of others) {
      const { my } = other;
      if (my.quiet === peer.ledger.index + 1 || (my.held === 1 && isLast)) this.#letGo(other);
    }
  }

  protected overdue(peer: Peer): void {
    if (peer.my.quiet !== 0) {
      this.warn(peer, 'was stopped for another device, and then not by its VMM: it goes on');
    }
    this.#letGo(peer);
  }

  #letGo(peer: Peer): void {
    const { my } = peer;
    this.changes(peer);
    my.quiet = 0;
    my.held = 0;
    try {
      const state = this.look(peer);
      const goal = state === undefined ? undefined : loudAs[state];
      if (goal !== undefined) this.ask(peer, goal);
    } catch (error) {
      if (!isNotReady(error)) throw error;
      my.held = 1; // it is asked once more
      my.since = this.now();
    }
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
