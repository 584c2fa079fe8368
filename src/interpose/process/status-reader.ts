import type { Protocol } from '../../device/migratable.ts';
import { bridgedFacts, bridgedName } from '../bridged/bridged-facts.ts';
import { deviceArena, JournalLayout } from '../memory/journal.ts';
import { Ledgers, type Ledger } from '../memory/ledger.ts';
import { placesOf, type Plan } from '../run/plan.ts';
import { progressIn, stateNoted } from '../serve/progress.ts';
import { statesOf } from '../serve/report.ts';
import { STATUS_VERSION, type DeviceStatus, type Status } from './status.ts';

/** What a device is. */
type Identity = Pick<DeviceStatus, 'name' | 'device' | 'protocol'>;

/** Makes a status of what supervisors have committed to the journal. It only reads, and no supervisor knows of it. */
export class StatusReader {
  readonly #plan: Plan;
  readonly #ledgers: readonly Ledger[];

  constructor(plan: Plan, journal: Uint8Array) {
    this.#plan = plan;
    const layout = new JournalLayout(placesOf(plan));
    const ledgers = new Ledgers(layout.ledgers(journal));
    this.#ledgers = Array.from({ length: placesOf(plan) }, (_, n) => layout.deviceLedger(journal, ledgers, n));
  }

  status(takeovers: number): Status {
    const devices = this.#ledgers.flatMap((ledger, place) => {
      ledger.look();
      const identity = this.#identityOf(ledger, place);
      return identity === undefined ? [] : [deviceStatus(identity, ledger)];
    });
    return { version: STATUS_VERSION, time: Date.now(), takeovers, devices };
  }

  /** `undefined` if there is no device in that place. */
  #identityOf(ledger: Ledger, place: number): Identity | undefined {
    const planned = this.#plan.devices[place];
    const protocol = this.#plan.status?.protocols[place];
    if (planned !== undefined && protocol !== undefined) return { name: planned.name, device: planned.text, protocol };
    const { used, flags } = bridgedFacts(ledger);
    const name = bridgedName(ledger);
    return used === 1 ? { name, device: `vfio:${name}`, protocol: flags === 0 ? 'v1' : 'v2' } : undefined;
  }
}

function deviceStatus(identity: Identity, { arena }: Ledger): DeviceStatus {
  const { offset, size } = deviceArena.progress;
  const noted = arena.subarray(offset, offset + size);
  const state = stateIn(noted, identity.protocol);
  return { ...identity, state, ...progressIn(noted, identity.protocol, state === 'STOP_COPY') };
}

function stateIn(noted: Uint8Array, protocol: Protocol): string | null {
  const number = stateNoted(noted);
  return number === undefined ? null : statesOf(protocol).name(number);
}
