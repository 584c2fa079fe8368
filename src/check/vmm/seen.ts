import { V1, withoutReserved } from '../../v1/states.ts';
import { isReset, isRead, isV1, isV2, shown, stateAsked, written, type Asked } from './asked.ts';

/** What a VMM knows of a device from what it asked before, as far as a recording tells. */
export class Seen {
  /** v1: device_state without reserved bits, as it was shown or written last; `undefined` if that is not known. */
  v1State: number | undefined;
  /** The value that was read last, reserved bits and all. */
  v1Raw: number | undefined;
  /** pending_bytes as it was read last in this state. */
  pending: number | undefined;
  /** data_size as it was read last in this state. */
  size: number | undefined;
  /** data_offset was read since pending_bytes was. */
  hasOffset = false;
  /** v2: the state, as it was shown or entered last. */
  v2State: string | undefined;
  /** In STOP_COPY a read has returned 0; by vfio-user, less than was asked for. */
  isAtEnd = false;

  /** Notes what was asked, once it was looked at. */
  note(asked: Asked): void {
    if (isReset(asked)) this.#reset(asked);
    else if (isV1(asked.call)) this.#noteV1(asked);
    else if (isV2(asked.call)) this.#noteV2(asked);
  }

  #reset({ errno }: Asked): void {
    if (errno !== undefined) return;
    this.#enterV1(V1.RUNNING);
    this.v1Raw = undefined;
    this.#enterV2('RUNNING');
  }

  #noteV1(asked: Asked): void {
    const { errno } = asked;
    const state = written(asked, 'device_state');
    if (state !== undefined) this.#enterV1(errno === undefined ? withoutReserved(state) : undefined);
    const raw = shown(asked, 'device_state');
    if (raw !== undefined) {
      this.v1Raw = raw;
      if (this.v1State !== withoutReserved(raw)) this.#enterV1(withoutReserved(raw));
    }
    this.pending = shown(asked, 'pending_bytes') ?? this.pending;
    if (isRead(asked, 'pending_bytes')) this.hasOffset = false;
    if (isRead(asked, 'data_offset')) this.hasOffset = true;
    this.size = shown(asked, 'data_size') ?? this.size;
  }

  #enterV1(state: number | undefined): void {
    this.v1State = state;
    this.pending = undefined;
    this.size = undefined;
    this.hasOffset = false;
  }

  #noteV2({ call, errno, bytesAsked = 1 }: Asked): void {
    if (!isV2(call)) return;
    switch (call.call) {
      case 'set-state':
        this.#enterV2(errno === undefined ? call.state : undefined);
        return;
      case 'get-state':
        if (call.state !== undefined && call.state !== this.v2State) this.#enterV2(call.state);
        return;
      case 'data':
        if (this.v2State === 'STOP_COPY' && call.direction === 'out' && (call.bytes ?? bytesAsked) < bytesAsked) {
          this.isAtEnd = true;
        }
        return;
      default:
    }
  }

  #enterV2(state: string | undefined): void {
    this.v2State = state;
    this.isAtEnd = false;
  }

  /** The device runs after this, so far as the VMM knows. */
  static runs(asked: Asked): boolean {
    if (asked.errno !== undefined) return false;
    const v1 = written(asked, 'device_state');
    return (
      isReset(asked) ||
      (v1 !== undefined && withoutReserved(v1) === V1.RUNNING) ||
      stateAsked(asked)?.startsWith('RUNNING') === true
    );
  }
}
