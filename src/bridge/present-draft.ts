import { ShimError } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import { V1RegisterAccess } from '../v1/registers.ts';
import { V1, v1StateName, type V1State } from '../v1/states.ts';
import { DraftBuffers, type DraftParts } from './draft-buffers.ts';
import { DraftDirty, type DirtyPages } from './draft-dirty.ts';
import { DraftWriter } from './draft-writer.ts';
import {
  draftLiveMemory,
  PRESENT_DRAFT_STATE_SIZE,
  present_draft_live,
  present_draft_state,
  type PresentDraftLive,
  type PresentDraftState,
} from './present-draft-state.ts';
import type { Warn } from './warn.ts';

/** Options of presentDraft2018() and presentDraft2019(). */
export interface PresentDraftOptions {
  /** The memory of the data section, a multiple of 4096 bytes, not smaller than the v1 device's. Default: as large as that. */
  readonly dataSection?: Uint8Array;
  /** Memory as large as the data section, for a buffer that was fetched and not taken. */
  readonly aside?: Uint8Array;
  /** Who knows which memory the device has written to. Without it, all of the memory counts as dirty. */
  readonly dirty?: DirtyPages;
  /** The v1 device takes device_state 0 after 4, and loads by then: RESUME_COMPLETED writes it (2018). presentV1's devices do. */
  readonly stopAfterLoad?: boolean;
  /** Default: nobody is told. */
  readonly warn?: Warn;
  /** `PRESENT_DRAFT_STATE_SIZE` bytes: everything the bridge remembers besides `aside`. */
  readonly state?: Uint8Array;
  /**
   * `PRESENT_DRAFT_LIVE_SIZE` bytes of memory that counts at once, for a v1 device that does not forget what it was asked when `state` goes
   * back to what it was before a call. Without it they are part of `state`.
   */
  readonly live?: Uint8Array;
}

/** What the two presented drafts have in common: a v1 device, its sessions as the user believes in them, and the halves of a migration. */
export class DraftSession {
  readonly my: PresentDraftState;
  readonly section: Uint8Array;
  readonly buffers: DraftBuffers;
  readonly writer: DraftWriter;
  readonly dirty: DraftDirty;
  readonly #live: PresentDraftLive;
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #warn: Warn | undefined;
  /** Is told of a device_state that nobody here has written. */
  readonly #adopt: (v1: V1State) => void;

  constructor(device: V1Device, options: PresentDraftOptions, adopt: (v1: V1State) => void) {
    const { size } = device.dataSection;
    const section = options.dataSection ?? new Uint8Array(Math.ceil(size / 4096) * 4096);
    const aside = options.aside ?? new Uint8Array(section.length);
    if (section.length % 4096 !== 0 || section.length < size || aside.length < section.length) {
      throw new ShimError(
        'ERR_ARGUMENT',
        `data section: ${section.length} bytes, ${aside.length} aside, is no multiple of 4096 that holds a buffer of ${size}`,
      );
    }
    const state = options.state ?? new Uint8Array(PRESENT_DRAFT_STATE_SIZE);
    this.my = present_draft_state.view(state);
    this.#live = present_draft_live.view(options.live ?? draftLiveMemory(state));
    this.section = section;
    this.#device = device;
    this.#registers = new V1RegisterAccess(device);
    this.#warn = options.warn;
    this.#adopt = adopt;
    const parts: DraftParts = { device, registers: this.#registers, section, aside, my: this.my, live: this.#live };
    this.buffers = new DraftBuffers(parts);
    this.writer = new DraftWriter(parts);
    this.dirty = new DraftDirty(section, this.my, options.dirty, options.warn);
  }

  /**
   * The v1 device's state. A session that has ended behind the user's back is lost. If a predecessor was killed over a write of device_state,
   * it is still the state of before: the same call comes again.
   */
  sync(): V1State {
    const { my } = this;
    const found = this.#registers.deviceState();
    if (found + 1 === my.v1_plus_one) return found;
    const before = my.v1_plus_one - 1;
    if (before >= 0 && found + 1 === this.#live.wrote) return before as V1State;
    if (hasData(before)) {
      this.#warn?.(`the session has ended: the v1 device is in ${v1StateName(found)}`);
      my.lost = 1;
    }
    this.#arrive(found);
    this.#adopt(found);
    return found;
  }

  /** Writes device_state. If that fails, the user learns it from the failure, and is where the device is. */
  write(target: V1State): void {
    if (target === V1.STOP_COPY) this.buffers.finish();
    this.#live.wrote = target + 1;
    try {
      const found = this.#registers.rawDeviceState();
      if (this.#registers.stateOf(found) !== target) this.#registers.writeDeviceState(found, target);
    } catch (error) {
      this.#settle();
      throw error;
    }
    this.#arrive(target);
  }

  #settle(): void {
    const found = this.#registers.deviceState();
    if (found + 1 === this.my.v1_plus_one) return;
    this.#arrive(found);
    this.#adopt(found);
  }

  /** The device is in a state: a session goes on from pre-copy to stop-and-copy, with what was fetched; no other does. */
  #arrive(v1: V1State): void {
    const { my } = this;
    const goesOn = my.v1_plus_one - 1 === V1.PRE_COPY && v1 === V1.STOP_COPY;
    my.v1_plus_one = v1 + 1;
    if (!goesOn) this.#forget();
    if (v1 !== V1.PRE_COPY && v1 !== V1.STOP_COPY && v1 !== V1.RUNNING) this.dirty.end();
  }

  #forget(): void {
    const { my } = this;
    this.buffers.forget();
    this.writer.forget();
    my.told = 0;
    my.moved = 0;
  }

  /** Every access to data of a session that was lost fails. */
  refuseDataAfterLoss(): void {
    if (this.my.lost === 1) throw lostSession();
  }

  /** The next state that is asked for ends a loss. One that would begin a session fails with it: it is no continuation. */
  refuseStateAfterLoss(beginsSession: boolean): void {
    const { my } = this;
    if (my.lost === 0) return;
    my.lost = 0;
    if (my.v1_plus_one - 1 === V1.RUNNING) this.#acknowledgeLoss();
    if (beginsSession) throw lostSession();
  }

  /** presentV1, below, tells its user of a loss until it is asked to run, which it does already. */
  #acknowledgeLoss(): void {
    try {
      this.#registers.setDeviceState(V1.RUNNING);
    } catch {
      // the one answer that was still owed
    }
  }

  /** The user gives up a device that has got a part of a state: it is reset, and nobody need be told. */
  giveUp(): void {
    this.my.moved = 0;
    this.reset();
    this.#acknowledgeLoss();
  }

  /** A session of which something has gone to its user, or come from there, is lost with a reset. */
  reset(): void {
    const { my } = this;
    const isLost = hasData(my.v1_plus_one - 1) && my.moved === 1;
    this.#device.reset();
    if (isLost) my.lost = 1;
    this.dirty.end();
    const found = this.#registers.deviceState();
    this.#arrive(found);
    this.#adopt(found);
  }
}

/** True in a saving state of a v1 device. */
export function isSavingV1(v1: number): boolean {
  return v1 === V1.PRE_COPY || v1 === V1.STOP_COPY;
}

function hasData(v1: number): boolean {
  return isSavingV1(v1) || v1 === V1.RESUMING;
}

/** The refusal of a device_state. */
export function noWay(from: string, to: string, why = ''): ShimError {
  return new ShimError('ERR_TRANSITION', `device_state: ${from} does not lead to ${to}${why}`, { errno: 'EINVAL' });
}

/** A device in ERROR is left by a reset alone. */
export function refuseInError(v1: V1State): asserts v1 is Exclude<V1State, 6> {
  if (v1 !== V1.ERROR) return;
  throw new ShimError('ERR_DEVICE', 'device_state: the device is in ERROR, which only a reset ends', { errno: 'EIO' });
}

function lostSession(): ShimError {
  return new ShimError('ERR_SESSION_ENDED', "migration data: the session ended behind the user's back", {
    errno: 'EIO',
  });
}
