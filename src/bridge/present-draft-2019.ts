import { ShimError } from '../error.ts';
import type { DraftDevice } from '../v1/drafts/device.ts';
import { DRAFT_PAGE } from '../v1/drafts/dirty.ts';
import { DraftRegion, noAccess, type DraftRegisters } from '../v1/drafts/region.ts';
import type { Register2019 } from '../v1/drafts/registers.ts';
import { draftStateName, is2019State, S2019, type State2019 } from '../v1/drafts/states.ts';
import type { V1Device } from '../v1/device.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import { V1, type V1State } from '../v1/states.ts';
import { checkedPage } from './draft-dirty.ts';
import { refuseAfterFailedWrite } from './loss.ts';
import { DraftSession, isSavingV1, noWay, refuseInError, type PresentDraftOptions } from './present-draft.ts';

/** How the v1 states are shown. */
const shownAs: Readonly<Record<Exclude<V1State, 6>, State2019>> = {
  [V1.STOP]: S2019.STOPPED_OR_RESUMING,
  [V1.RUNNING]: S2019.RUNNING,
  [V1.PRE_COPY]: S2019.PRE_COPY,
  [V1.STOP_COPY]: S2019.STOP_COPY,
  [V1.RESUMING]: S2019.STOPPED_OR_RESUMING,
};

type Way = readonly Exclude<V1State, 6>[] | undefined;

/**
 * What is written to the v1 device for each value, by where that is; `undefined` if there is no way. 0 is a stop
 * after saving, and otherwise begins to resume: so NVIDIA's driver has it (nvidia-vgpu-vfio.c: nv_translate_device_state).
 */
const writes: Readonly<Record<State2019, Readonly<Record<Exclude<V1State, 6>, Way>>>> = {
  [S2019.STOPPED_OR_RESUMING]: { 0: [4], 1: [4], 2: [0], 3: undefined, 4: [] },
  [S2019.RUNNING]: { 0: [1], 1: [], 2: [1], 3: [1], 4: [1] },
  [S2019.STOP_COPY]: { 0: [2], 1: [2], 2: [], 3: [2], 4: undefined },
  [S2019.PRE_COPY]: { 0: [1, 3], 1: [3], 2: undefined, 3: [], 4: undefined },
};

/**
 * Shows a v1 device as a device of February 2019. A v2 device becomes one by presentV1 in between.
 *
 * One buffer is one v1 buffer, and pending_bytes fetches it. The published VMM never reads data_size: it takes what is pending, as far as
 * the data section goes. So pending_bytes is the buffer's size, and more only in pre-copy and if the buffer fills the section.
 */
export function presentDraft2019(device: V1Device, options: PresentDraftOptions = {}): DraftDevice {
  const presented = new Presented2019(device, options);
  return new DraftRegion('draft-2019', presented, presented.section);
}

class Presented2019 implements DraftRegisters<'draft-2019'> {
  readonly #session: DraftSession;

  constructor(device: V1Device, options: PresentDraftOptions) {
    this.#session = new DraftSession(device, options, () => {});
    const { my } = this.#session;
    if (my.v1_plus_one > 0) return;
    my.write_offset = BigInt(DATA_OFFSET);
    my.dirty_page = BigInt(DRAFT_PAGE);
  }

  get section(): Uint8Array {
    return this.#session.section;
  }

  readRegister(register: Register2019): number | bigint {
    const session = this.#session;
    const v1 = session.sync();
    const { my } = session;
    switch (register) {
      case 'device_state':
        return shown(v1);
      case 'reserved':
        return 0;
      case 'pending_bytes':
        return this.#pending(v1);
      case 'data_offset':
        this.#show(v1);
        return DATA_OFFSET;
      case 'data_size':
        session.refuseDataAfterLoss();
        return my.staged;
      case 'copied_pfns':
        return session.dirty.copied(this.#firstAddress());
      case 'start_pfn':
      case 'page_size':
      case 'total_pfns':
        throw noAccess('read', register);
    }
  }

  writeRegister(register: Register2019, value: bigint): void {
    const session = this.#session;
    const { my, dirty } = session;
    switch (register) {
      case 'device_state':
        this.#writeState(Number(value));
        return;
      case 'reserved':
        return;
      case 'data_offset':
        this.#checkResuming(register);
        my.write_offset = value;
        return;
      case 'data_size':
        this.#checkResuming(register);
        session.writer.write(my.write_offset, value);
        return;
      case 'start_pfn':
        my.dirty_start = value;
        dirty.restart();
        return;
      case 'page_size':
        my.dirty_page = checkedPage(value);
        dirty.restart();
        return;
      case 'total_pfns':
        my.dirty_total = value;
        dirty.restart();
        return;
      case 'pending_bytes':
      case 'copied_pfns':
        throw noAccess('write', register);
    }
  }

  /**
   * What the published VMM does with a buffer if it has not mapped the section: it writes the bytes behind the registers, and their
   * size before them (QEMU patches, version 3: hw/vfio/migration.c: vfio_load_state). With that the device has taken what lay in the section.
   */
  strayWrite(): void {
    if (this.#session.sync() === V1.RESUMING) this.#session.writer.refuse('EINVAL');
  }

  reset(): void {
    this.#session.reset();
  }

  #firstAddress(): bigint {
    const { dirty_start, dirty_page } = this.#session.my;
    return dirty_start * dirty_page; // copied() refuses what is beyond all addresses
  }

  /** Fetches the next buffer once the one before was shown. */
  #pending(v1: V1State): number {
    const session = this.#session;
    session.refuseDataAfterLoss();
    if (!isSavingV1(v1)) return 0;
    const { my, buffers } = session;
    if (my.offset_read === 1) buffers.take();
    buffers.fetch();
    // a full section: the user takes that much, and is told here again what is left then
    const isFull = v1 === V1.PRE_COPY && my.staged === session.section.length;
    my.told = isFull ? buffers.pending() : my.staged;
    return my.told;
  }

  #show(v1: V1State): void {
    const session = this.#session;
    session.refuseDataAfterLoss();
    if (!isSavingV1(v1)) return;
    const { my, buffers } = session;
    if (my.offset_read === 1 && my.told > my.staged) {
      my.told -= my.staged;
      buffers.take();
    }
    if (my.told === 0) return;
    if (my.offset_read === 0) this.#fetchTold();
    buffers.show();
    my.offset_read = 1;
  }

  /** The user goes by what it was told before. It would take as much as that says, so there must be as much. */
  #fetchTold(): void {
    const { my, buffers, section } = this.#session;
    buffers.fetch();
    const expected = Math.min(my.told, section.length);
    if (my.staged === expected) return;
    my.told = my.staged;
    throw new ShimError(
      'ERR_ACCESS',
      `migration region: data_offset: the next buffer has ${my.staged} bytes, not ${expected}: read pending_bytes first`,
      { errno: 'EIO' },
    );
  }

  #checkResuming(register: Register2019): void {
    const v1 = this.#session.sync();
    this.#session.refuseDataAfterLoss();
    if (v1 === V1.RESUMING) return;
    throw new ShimError('ERR_ACCESS', `write of ${register}: the device is not resuming`, { errno: 'EINVAL' });
  }

  #writeState(value: number): void {
    const session = this.#session;
    const { my } = session;
    if (!is2019State(value)) throw noWay('a state', name(value));
    session.sync();
    session.refuseStateAfterLoss(value !== S2019.RUNNING);
    const v1 = session.sync();
    refuseInError(v1);
    const way = writes[value][v1];
    if (way === undefined) throw noWay(name(shown(v1)), name(value));
    if (v1 === V1.RESUMING && way.length > 0) refuseAfterFailedWrite(my.refused_errno);
    if (value === S2019.PRE_COPY || value === S2019.STOP_COPY) session.dirty.begin();
    for (const write of way) session.write(write);
    if (value === S2019.RUNNING) session.dirty.end();
  }
}

/** Throws `EIO` for a device in ERROR, which this draft has no value for. */
function shown(v1: V1State): State2019 {
  if (v1 !== V1.ERROR) return shownAs[v1];
  throw new ShimError('ERR_DEVICE', 'device_state: the device is in ERROR', { errno: 'EIO' });
}

function name(state: number): string {
  return draftStateName('draft-2019', state);
}
