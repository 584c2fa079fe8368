import { DATA_OFFSET, type V1Registers } from '../v1/region.ts';
import { isV1State, isV1Transition, V1, v1StateName, type V1State } from '../v1/states.ts';
import { Playing, type TapePlayer } from './tape-player.ts';
import { refused } from './v1-driver.ts';

/** A recorded v1 driver: shows the buffers of its tape, and takes the transactions. */
export class RecordedV1 implements V1Registers {
  readonly #player: TapePlayer;
  readonly #section: Uint8Array;

  constructor(player: TapePlayer, section: Uint8Array) {
    this.#player = player;
    this.#section = section;
    if (player.my.state_plus_one === 0) this.#state = V1.RUNNING;
  }

  get #state(): V1State {
    return (this.#player.my.state_plus_one - 1) as V1State;
  }

  set #state(state: V1State) {
    this.#player.my.state_plus_one = state + 1;
  }

  readDeviceState(): number {
    return this.#state;
  }

  writeDeviceState(value: number): void {
    const player = this.#player;
    const from = this.#state;
    const [before, after] = [v1StateName(from), v1StateName(value)];
    player.changes(before, after, (left) => this.#leaveIn(left));
    if (!isV1Transition(from, value)) throw refused('EINVAL', `device_state ${before} does not lead to ${after}`);
    if (value === from) return;
    if (from === V1.RESUMING) player.checkLoaded();
    const isSaving = value === V1.PRE_COPY || value === V1.STOP_COPY;
    if (value === V1.RESUMING) player.begin(Playing.IN);
    else if (!isSaving) player.end();
    else if (!(from === V1.PRE_COPY && value === V1.STOP_COPY)) player.begin(Playing.OUT);
    this.#state = value;
  }

  #leaveIn(name: string): void {
    const [, state] = Object.entries(V1).find(([each]) => each === name) ?? [];
    if (state === undefined || !isV1State(state)) return;
    if (state !== this.#state) this.#player.end();
    this.#state = state;
  }

  get #isSaving(): boolean {
    return this.#player.my.session === Playing.OUT;
  }

  /** The size of the buffer that comes next in this state; 0 if there is none now. */
  get #nextSize(): number {
    const { out, my } = this.#player;
    const end = out.ends.find((each) => each > my.position) ?? my.position;
    return this.#state === V1.PRE_COPY && end > out.preCopy ? 0 : end - my.position;
  }

  readPendingBytes(): number {
    if (!this.#isSaving) return 0;
    const player = this.#player;
    const { my, out } = player;
    player.strike(out);
    my.position += my.shown;
    my.shown = 0;
    const size = this.#nextSize;
    if (this.#state === V1.STOP_COPY && my.position === out.bytes) player.checkEnd();
    const said = player.info(v1StateName(this.#state));
    const rest = said?.at === my.position ? said.initialBytes : 0;
    return Math.max(rest, size);
  }

  readDataOffset(): number {
    if (!this.#isSaving) return DATA_OFFSET;
    const player = this.#player;
    player.strike(player.out);
    if (player.my.shown > 0) return DATA_OFFSET;
    const size = this.#nextSize;
    this.#section.set(player.next(player.my.position + size, size));
    player.my.shown = size;
    return DATA_OFFSET;
  }

  readDataSize(): number {
    return this.#isSaving ? this.#player.my.shown : 0;
  }

  writeDataSize(size: number): void {
    if (this.#state !== V1.RESUMING) throw refused('EINVAL', 'data_size is written while resuming only');
    this.#player.take(this.#section.subarray(0, size));
  }

  reset(): void {
    this.#player.end();
    this.#state = V1.RUNNING;
  }
}
