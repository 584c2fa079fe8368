import type { DriverName } from '../../sim/drivers.ts';
import type { DraftDevice } from '../../v1/drafts/device.ts';
import { DraftRestore } from '../../v1/drafts/restore.ts';
import { Draft2018Save } from '../../v1/drafts/save-2018.ts';
import { Draft2019Save } from '../../v1/drafts/save-2019.ts';
import { V1Restore } from '../../v1/restore.ts';
import { V1Save } from '../../v1/save.ts';
import { V2Restore } from '../../v2/restore.ts';
import { V2Save } from '../../v2/save.ts';
import type { Plan } from '../run/plan.ts';
import { RehearsalTarget } from './rehearsal-target.ts';

/*
 * Code that has not run before is slow, some 30 microseconds a call instead of 5, and a VM migrates once: all of that would be
 * its downtime. So a supervisor rehearses while it has nothing to do. A device of its own is migrated a number of times,
 * through the same objects by which the target's devices are served and with calls that this process makes to itself, until
 * V8 has compiled what a migration takes.
 */

/** How often a device is migrated, and how long that may take in all, in milliseconds. */
const ROUNDS = 120;
const LONGEST = 500;
/** How long a call of the target may have to wait for the rehearsal, in milliseconds. */
const SLICE = 0.5;

export class Rehearsal {
  readonly #steps: Iterator<void>;
  readonly #clock: () => number;
  #took = 0;

  /** Rehearses what a run with this plan shows of devices with these drivers. `clock`: in milliseconds. */
  constructor(plan: Plan, drivers: readonly DriverName[], clock: () => number = () => performance.now()) {
    this.#clock = clock;
    this.#steps = rehearse(plan, drivers);
  }

  /** Goes on for a moment. False once it is over. */
  step(): boolean {
    const begin = this.#clock();
    let now = begin;
    while (now - begin < SLICE && this.#took + now - begin < LONGEST) {
      if (this.#steps.next().done === true) return false;
      now = this.#clock();
    }
    this.#took += now - begin;
    if (this.#took < LONGEST) return true;
    this.#steps.return?.();
    return false;
  }
}

function* rehearse(plan: Plan, drivers: readonly DriverName[]): Generator<void> {
  for (const driver of drivers) {
    using stage = new RehearsalTarget(plan, driver);
    const { v1, v2, draft } = stage;
    yield;
    for (let round = 0; round < ROUNDS; round += 1) {
      if (v1 !== undefined) yield* migrate(v1, (sink) => new V1Save(v1, sink), new V1Restore(v1));
      if (draft !== undefined) yield* migrate(draft, (sink) => draftSave(draft, sink), new DraftRestore(draft));
      if (v2 !== undefined) yield* migrate(v2, (sink) => new V2Save(v2, sink), new V2Restore(v2));
    }
  }
}

type Sink = (piece: Uint8Array) => void;

function draftSave(draft: DraftDevice, sink: Sink): Draft2018Save | Draft2019Save {
  return draft.draft === 'draft-2018' ? new Draft2018Save(draft, sink) : new Draft2019Save(draft, sink);
}

/**
 * Saves a device, as QEMU does, and restores it from that. There are drivers whose device is not saved twice, or restored where it
 * was saved, before it is reset.
 */
function* migrate(
  device: { reset(): void },
  saveTo: (sink: Sink) => V1Save | V2Save | Draft2018Save | Draft2019Save,
  restore: V1Restore | V2Restore | DraftRestore,
): Generator<void> {
  const state: Uint8Array[] = [];
  const save = saveTo((piece) => state.push(piece.slice()));
  device.reset();
  save.setup();
  yield;
  // one pass: there are drivers whose pre-copy never ends
  for (let left = save.pending(); left > 0 && save.pending() > 0;) {
    const sent = save.iterate();
    if (sent === 0) break;
    left -= sent;
    yield;
  }
  save.stop();
  yield;
  save.complete();
  yield;
  device.reset();
  restore.setup();
  for (const piece of state) {
    yield;
    restore.load(piece);
  }
  restore.complete();
  yield;
}
