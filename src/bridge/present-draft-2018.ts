import { isNotReady, ShimError } from '../error.ts';
import type { DraftDevice } from '../v1/drafts/device.ts';
import { DRAFT_PAGE } from '../v1/drafts/dirty.ts';
import { DraftRegion, noAccess, type DraftRegisters } from '../v1/drafts/region.ts';
import type { Register2018 } from '../v1/drafts/registers.ts';
import { draftStateName, is2018Transition, S2018, type State2018 } from '../v1/drafts/states.ts';
import type { V1Device } from '../v1/device.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import { V1, type V1State } from '../v1/states.ts';
import { refuseAfterFailedWrite } from './loss.ts';
import { DraftSession, isSavingV1, noWay, refuseInError, type PresentDraftOptions } from './present-draft.ts';

/** How a v1 state is shown that nobody here has asked for. */
const shownAs: Readonly<Record<V1State, State2018>> = {
  [V1.STOP]: S2018.NONE,
  [V1.RUNNING]: S2018.RUNNING,
  [V1.PRE_COPY]: S2018.MIGRATION_PRECOPY,
  [V1.STOP_COPY]: S2018.MIGRATION_STOPNCOPY,
  [V1.RESUMING]: S2018.MIGRATION_RESUME,
  [V1.ERROR]: S2018.MIGRATION_FAILED,
};

/** States in which a migration comes in. */
const INCOMING: ReadonlySet<State2018> = new Set([S2018.MIGRATION_RESUME, S2018.MIGRATION_RESUME_COMPLETED]);
/** States that lead to data, on the way out. */
const OUTGOING: ReadonlySet<State2018> = new Set([
  S2018.MIGRATION_SETUP,
  S2018.MIGRATION_PRECOPY,
  S2018.MIGRATION_STOPNCOPY,
]);

/**
 * Shows a v1 device as a device of November 2018. A v2 device becomes one by presentV1 in between.
 *
 * One buffer is one v1 buffer. It counts as taken once both its registers were read and either is read again, or what is pending is
 * asked for. All that is left of pre-copy is precopy_only, all of stop-and-copy postcopy_only, and nothing is ever compatible: the
 * published VMM would ask for ever.
 */
export function presentDraft2018(device: V1Device, options: PresentDraftOptions = {}): DraftDevice {
  const presented = new Presented2018(device, options);
  return new DraftRegion('draft-2018', presented, presented.section);
}

class Presented2018 implements DraftRegisters<'draft-2018'> {
  readonly #session: DraftSession;
  readonly #stopAfterLoad: boolean;

  constructor(device: V1Device, options: PresentDraftOptions) {
    this.#stopAfterLoad = options.stopAfterLoad === true;
    this.#session = new DraftSession(device, options, (v1) => {
      this.#session.my.shown = shownAs[v1];
    });
    this.#session.my.dirty_page = BigInt(DRAFT_PAGE);
  }

  get section(): Uint8Array {
    return this.#session.section;
  }

  readRegister(register: Register2018): number | bigint {
    const session = this.#session;
    const v1 = session.sync();
    const { my } = session;
    switch (register) {
      case 'device_state':
        return my.shown;
      case 'pending_threshold_size':
        return my.threshold;
      case 'pending_precopy_only':
        return this.#pending(v1 === V1.PRE_COPY);
      case 'pending_compatible':
        return 0;
      case 'pending_postcopy_only':
        return this.#pending(v1 === V1.STOP_COPY);
      case 'data_offset':
        this.#readData(v1, register);
        return DATA_OFFSET;
      case 'data_size':
        this.#readData(v1, register);
        return my.staged;
      case 'dirty_pfns_copied':
        return session.dirty.copied(my.dirty_start);
      case 'dirty_pfns_start_addr':
      case 'dirty_pfns_total':
        throw noAccess('read', register);
    }
  }

  writeRegister(register: Register2018, value: bigint): void {
    const { my, dirty } = this.#session;
    switch (register) {
      case 'device_state':
        this.#writeState(Number(value));
        return;
      case 'pending_threshold_size':
        my.threshold = value;
        return;
      case 'data_offset':
      case 'data_size':
        this.#writeData(register, value);
        return;
      case 'dirty_pfns_start_addr':
        my.dirty_start = value;
        dirty.restart();
        return;
      case 'dirty_pfns_total':
        my.dirty_total = value;
        dirty.restart();
        return;
      case 'pending_precopy_only':
      case 'pending_compatible':
      case 'pending_postcopy_only':
      case 'dirty_pfns_copied':
        throw noAccess('write', register);
    }
  }

  reset(): void {
    this.#session.reset();
  }

  #pending(isIts: boolean): number {
    const session = this.#session;
    session.refuseDataAfterLoss();
    if (!isIts) return 0;
    const { my, buffers } = session;
    if (my.offset_read === 1 && my.size_read === 1) buffers.take();
    return buffers.pending();
  }

  /** The first of the two reads says what the buffer is, none included. */
  #readData(v1: V1State, register: 'data_offset' | 'data_size'): void {
    const session = this.#session;
    session.refuseDataAfterLoss();
    if (!isSavingV1(v1)) return;
    const { my, buffers } = session;
    if (my.offset_read === 1 && my.size_read === 1) buffers.take();
    if (my.offset_read === 0 && my.size_read === 0) buffers.fetch();
    if (my.staged > 0) buffers.show();
    if (register === 'data_offset') my.offset_read = 1;
    else my.size_read = 1;
  }

  /** The device takes a buffer with the second of the two writes. */
  #writeData(register: 'data_offset' | 'data_size', value: bigint): void {
    const session = this.#session;
    const v1 = session.sync();
    session.refuseDataAfterLoss();
    const { my } = session;
    if (v1 !== V1.RESUMING || my.shown !== S2018.MIGRATION_RESUME) {
      throw new ShimError(
        'ERR_ACCESS',
        `write of ${register}: the device is in ${name(my.shown)}, not MIGRATION_RESUME`,
        {
          errno: 'EINVAL',
        },
      );
    }
    if (register === 'data_offset') {
      my.write_offset = value;
      my.offset_written = 1;
    } else {
      my.write_size = value;
      my.size_written = 1;
    }
    if (my.offset_written === 0 || my.size_written === 0) return;
    try {
      session.writer.write(my.write_offset, my.write_size);
    } catch (error) {
      if (!isNotReady(error)) this.#forgetWritten();
      throw error;
    }
    this.#forgetWritten();
  }

  #forgetWritten(): void {
    const { my } = this.#session;
    my.offset_written = 0;
    my.size_written = 0;
  }

  #writeState(value: number): void {
    const session = this.#session;
    const { my } = session;
    const v1 = session.sync();
    const from = my.shown as State2018;
    const isOver = value === S2018.MIGRATION_FAILED || value === S2018.MIGRATION_CANCELLED;
    if (my.lost === 1 && isOver) {
      session.refuseStateAfterLoss(false);
      my.shown = value;
      return;
    }
    if (!is2018Transition(from, value)) throw noWay(name(from), name(value));
    session.refuseStateAfterLoss(value !== S2018.NONE && value !== S2018.RUNNING);
    if (value === from) return;
    refuseInError(v1);
    if (INCOMING.has(from) && !isOver) refuseAfterFailedWrite(my.refused_errno);
    this.#bring(v1, from, value);
    my.shown = value;
  }

  #bring(v1: V1State, from: State2018, target: State2018): void {
    const session = this.#session;
    const isHeld = v1 === V1.RESUMING && !INCOMING.has(from);
    if (isHeld && target !== S2018.RUNNING) {
      throw noWay(name(from), name(target), ': the device was loaded and has never run');
    }
    if (OUTGOING.has(target)) session.dirty.begin();
    switch (target) {
      case S2018.NONE:
        if (v1 !== V1.RESUMING && v1 !== V1.STOP) session.write(V1.STOP);
        return;
      case S2018.RUNNING:
        if (v1 !== V1.RUNNING) session.write(V1.RUNNING);
        session.dirty.end();
        return;
      case S2018.MIGRATION_SETUP:
        return;
      case S2018.MIGRATION_PRECOPY:
        if (v1 === V1.STOP) session.write(V1.RUNNING);
        session.write(V1.PRE_COPY);
        return;
      case S2018.MIGRATION_STOPNCOPY:
        session.write(V1.STOP_COPY);
        return;
      case S2018.MIGRATION_SAVE_COMPLETED:
        session.write(V1.STOP);
        return;
      case S2018.MIGRATION_RESUME:
        session.write(V1.RESUMING);
        return;
      case S2018.MIGRATION_RESUME_COMPLETED:
        if (this.#stopAfterLoad) session.write(V1.STOP);
        return; // otherwise 4 stays until 1 is due: drivers load on that, and a device in 4 does not run
      case S2018.MIGRATION_FAILED:
      case S2018.MIGRATION_CANCELLED:
        this.#giveUp(v1, from);
        return;
    }
  }

  /** A device that was being saved runs on, one for which nothing was asked yet stays; one that has got a part of a state is reset. */
  #giveUp(v1: V1State, from: State2018): void {
    const session = this.#session;
    if (INCOMING.has(from)) session.giveUp();
    else if (v1 !== V1.RUNNING && from !== S2018.MIGRATION_SETUP) session.write(V1.RUNNING);
    session.dirty.end();
  }
}

function name(state: number): string {
  return draftStateName('draft-2018', state);
}
