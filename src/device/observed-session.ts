import type { ErrnoName } from '../abi/errno.ts';
import { errnoNameOf } from '../error.ts';
import type { PrecopyInfo, V2DataSession } from '../v2/device.ts';
import type { Direction, V2Event } from './device-event.ts';

type Sink = (event: V2Event, bytes?: Uint8Array) => void;

/** A data session that tells of each call; one without the methods that spare a copy stays without them. */
export function observedSession(session: V2DataSession, sink: Sink, clock: () => number): V2DataSession {
  const isInPlace = session.peek !== undefined || session.room !== undefined || session.readAhead !== undefined;
  return isInPlace ? new ObservedInPlace(session, sink, clock) : new ObservedSession(session, sink, clock);
}

class ObservedSession implements V2DataSession {
  readonly #session: V2DataSession;
  readonly #sink: Sink;
  readonly #clock: () => number;

  constructor(session: V2DataSession, sink: Sink, clock: () => number) {
    this.#session = session;
    this.#sink = sink;
    this.#clock = clock;
  }

  get nonblockingErrno(): (() => ErrnoName) | undefined {
    return this.#session.nonblockingErrno;
  }

  get readableFrom(): (() => number) | undefined {
    return this.#session.readableFrom;
  }

  protected moved(direction: Direction, moved: Uint8Array | undefined, bytes: number): void {
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'data', direction, bytes }, moved?.subarray(0, bytes));
  }

  protected failed(direction: Direction, error: unknown): void {
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'data', direction, errno: errnoNameOf(error) });
  }

  read(into: Uint8Array): number {
    let bytes: number;
    try {
      bytes = this.#session.read(into);
    } catch (error) {
      this.failed('out', error);
      throw error;
    }
    this.moved('out', into, bytes);
    return bytes;
  }

  write(from: Uint8Array): number {
    let bytes: number;
    try {
      bytes = this.#session.write(from);
    } catch (error) {
      this.failed('in', error);
      throw error;
    }
    this.moved('in', from, bytes);
    return bytes;
  }

  get beginRead(): ((into?: Uint8Array) => void) | undefined {
    return this.#session.beginRead && ((into) => this.#session.beginRead?.(into));
  }

  precopyInfo(): PrecopyInfo {
    let info: PrecopyInfo;
    try {
      info = this.#session.precopyInfo();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'precopy-info', errno: errnoNameOf(error) });
      throw error;
    }
    const { initialBytes, dirtyBytes, reinit } = info;
    const told = { initialBytes, dirtyBytes, ...(reinit !== undefined && { reinit }) };
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'precopy-info', ...told });
    return info;
  }

  close(): void {
    this.#session.close();
  }
}

/**
 * A session whose user can take bytes from where they lie, or put them there: they are moved once the user says so. A look is told
 * only if it finds the end of the data, or fails. A method that the session lacks finds nothing.
 */
class ObservedInPlace extends ObservedSession {
  readonly #session: V2DataSession;
  /** What the last look has shown, and where there was room. */
  #shown: Uint8Array | undefined;
  #room: Uint8Array | undefined;

  constructor(session: V2DataSession, sink: Sink, clock: () => number) {
    super(session, sink, clock);
    this.#session = session;
  }

  peek(length: number): Uint8Array | undefined {
    let bytes: Uint8Array | undefined;
    try {
      bytes = this.#session.peek?.(length);
    } catch (error) {
      this.failed('out', error);
      throw error;
    }
    if (bytes?.length === 0) this.moved('out', bytes, 0);
    this.#shown = bytes;
    return bytes;
  }

  consume(length: number): void {
    const shown = this.#shown;
    this.#shown = undefined;
    this.#session.consume?.(length);
    this.moved('out', shown, length);
  }

  readAhead(): void {
    this.#session.readAhead?.();
  }

  room(length: number): Uint8Array | undefined {
    try {
      return (this.#room = this.#session.room?.(length));
    } catch (error) {
      this.failed('in', error);
      throw error;
    }
  }

  fill(length: number): void {
    const room = this.#room;
    this.#room = undefined;
    try {
      this.#session.fill?.(length);
    } catch (error) {
      this.failed('in', error);
      throw error;
    }
    this.moved('in', room, length);
  }
}
