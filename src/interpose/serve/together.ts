import type { Ledger } from '../memory/ledger.ts';
import { OfferedP2P } from './offered-p2p.ts';
import { P2P } from './p2p.ts';
import type { PeersOptions } from './peers.ts';

/** What the devices of a run have to do with each other, in both directions. */
export class Together {
  readonly drivers: P2P;
  readonly offered: OfferedP2P;

  constructor(options: PeersOptions) {
    this.drivers = new P2P(options);
    this.offered = new OfferedP2P(options);
  }

  /** The device is no longer there. */
  leave(ledger: Ledger): void {
    this.drivers.leave(ledger);
    this.offered.leave(ledger);
  }

  /** A thread uses the device. */
  usedBy(ledger: Ledger, tid: number): void {
    this.drivers.usedBy(ledger, tid);
    this.offered.usedBy(ledger, tid);
  }

  /** The ledgers of devices that have changed since this was asked, for the sake of others. */
  takeChanged(): readonly Ledger[] {
    const drivers = this.drivers.takeChanged();
    const offered = this.offered.takeChanged();
    return offered.length === 0 ? drivers : [...drivers, ...offered];
  }

  /** Lets devices go on that have waited long enough. Returns in how many milliseconds there is more to do. */
  work(): number {
    return Math.min(this.drivers.work(), this.offered.work());
  }
}
