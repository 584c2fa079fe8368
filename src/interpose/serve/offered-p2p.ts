import { errnoNumber } from '../../abi/errno.ts';
import { isNotReady } from '../../error.ts';
import type { V2DataSession } from '../../v2/device.ts';
import { V2, type V2State } from '../../v2/states.ts';
import { Peers, type Peer } from './peers.ts';

/*
 * A v1 driver has no P2P states: a full stop stands in for them (presentV2's offerP2P). But a VMM takes its devices there one after the
 * other, and the first would be stopped while the next still writes to it; on the way up the first would run, and write to those that are
 * stopped. So the devices of a VMM stop in a row, and start in a row:
 *
 *   - a device that is to enter a P2P state while others run is shown there, and its driver runs on. They all stop once the last of them
 *     is to stop, or before one of them enters a state that takes no writes from its peers in a v2 driver either.
 *   - a device that is to run while others are stopped is shown as RUNNING, and its driver waits until the last of them is to run.
 *
 * A VMM may mean one device only, so neither is put off for longer than a while.
 */

/** The v1 drivers of a run that are presented with P2P states. `quiet` is the P2P state that one is shown in while its driver runs. */
export class OfferedP2P extends Peers {
  protected shown({ my, device }: Peer): V2State {
    const state = device.getState();
    if (state === V2.ERROR) return state;
    if (my.held === 1) return V2.RUNNING;
    if (my.quiet === 0) return state;
    return state === V2.RUNNING ? V2.RUNNING_P2P : (my.quiet as V2State); // a reset may have ended the session
  }

  protected setState(peer: Peer, target: V2State): V2DataSession | undefined {
    const { my, device } = peer;
    const others = this.othersOf(peer);
    const now = device.getState();
    const othersRun = others.some(([, state]) => runs(state));
    const meanwhile = runningAs[target];
    if (meanwhile !== undefined && runs(now) && othersRun) {
      const session = device.setState(meanwhile);
      this.#putOff(peer, { quiet: target, held: 0 });
      return session;
    }
    if (target === V2.RUNNING && isStopped(now) && others.some(([, state]) => isStopped(state))) {
      const session = device.setState(V2.RUNNING_P2P);
      this.#putOff(peer, { quiet: 0, held: 1 });
      return session;
    }
    if (meanwhile === undefined ? isStopped(target) : !othersRun) this.#allThat('quiet', others);
    const session = device.setState(target);
    my.quiet = 0;
    my.held = 0;
    if (runs(target)) this.goesOn(peer);
    return session;
  }

  #putOff({ my }: Peer, what: { readonly quiet: number; readonly held: number }): void {
    Object.assign(my, what, { since: this.now() });
  }

  protected goesOn(peer: Peer): void {
    const others = this.othersOf(peer);
    if (!others.some(([, state]) => isStopped(state))) this.#allThat('held', others);
  }

  protected overdue(peer: Peer): void {
    const what = peer.my.held === 1 ? 'held' : 'quiet';
    const all: [Peer, unknown][] = [[peer, undefined], ...this.othersOf(peer)];
    try {
      this.#allThat(what, all);
    } catch (error) {
      if (!isNotReady(error)) throw error;
      for (const [{ my }] of all) if (my[what] !== 0) my.since = this.now(); // they are asked once more
    }
  }

  /** Brings the drivers of those that are shown elsewhere to where they are shown. */
  #allThat(what: 'quiet' | 'held', peers: readonly (readonly [Peer, unknown])[]): void {
    for (const [peer] of peers) if (peer.my[what] !== 0) this.#carryOut(peer);
  }

  #carryOut(peer: Peer): void {
    const { my } = peer;
    this.changes(peer);
    const goal = this.look(peer);
    const isThere = goal === V2.ERROR || (goal !== undefined && this.ask(peer, goal));
    if (!isThere) my.failed = errnoNumber('EIO');
    my.quiet = 0;
    my.held = 0;
  }
}

/** Where a driver is as long as its P2P state is put off: with the same session. */
const runningAs: Partial<Record<V2State, V2State>> = {
  [V2.RUNNING_P2P]: V2.RUNNING,
  [V2.PRE_COPY_P2P]: V2.PRE_COPY,
};

function runs(state: V2State): boolean {
  return state === V2.RUNNING || state === V2.PRE_COPY;
}

/** A v1 device in these states may not be written to. */
function isStopped(state: V2State): boolean {
  return state !== V2.ERROR && !runs(state);
}
