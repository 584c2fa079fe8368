import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { fieldWidth } from '../abi/struct.ts';
import type { DeviceEvent } from '../device/device-event.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import { isNotReady, ShimError } from '../error.ts';
import { deviceCall } from '../recording/line.ts';
import type { DeviceCall, RecordingHeader } from '../recording/format.ts';
import { pieceAt, wholeMappedAt } from '../v1/data-section.ts';
import type { V2DataSession } from '../v2/device.ts';
import { parseV2State } from '../v2/states.ts';
import { sleepUntilReady, whenReady } from '../wait.ts';
import { presented, type Presented } from './presented.ts';

type V1Call = Extract<DeviceCall, { readonly protocol: 'v1' }>;
type V2Call = Extract<DeviceCall, { readonly protocol: 'v2' }>;

/** What a call has come to now, as a recording would have it, and the migration data that it has brought out. */
export interface Answer {
  readonly call: DeviceCall;
  readonly data: Uint8Array | undefined;
}

/** So long a device may say "not yet" to one call, in milliseconds. */
const PATIENCE = 60_000;
const { fields } = vfio_device_migration_info;

/** Does to a device what a recorded VMM did, call by call, and tells what each comes to. */
export class RecordedVmm {
  readonly #presented: Presented;
  /** What was told last of what the VMM asks. */
  #told: DeviceEvent | undefined;
  /** Where the data of v1 lie: as the recorded VMM was told, and as this device has it. */
  #recordedOffset = 0;
  #offset = 0;

  constructor(backend: MigratableDevice, header: RecordingHeader, warn: (message: string) => void) {
    const sink = (event: DeviceEvent): void => void (this.#told = event);
    this.#presented = presented(backend, header, sink, warn);
  }

  /** Another user opens the device. */
  open(): void {
    whenReady(() => this.#presented.open(), patient());
  }

  /**
   * Makes a call; `given` is the migration data that the VMM gave with it, and `takes` says that it took some. `undefined` if a recording
   * does not say how the call was made.
   */
  make(call: DeviceCall, given: Uint8Array | undefined, takes: boolean): Answer | undefined {
    if (call.protocol === 'v1') return this.#inV1(call, given, takes);
    return call.protocol === 'v2' ? this.#inV2(call, given) : undefined;
  }

  #inV1(call: V1Call, given: Uint8Array | undefined, takes: boolean): Answer | undefined {
    const { v1 } = this.#presented;
    switch (call.call) {
      case 'reset':
        return this.#ask(() => v1.reset());
      case 'other':
        if (call.access === 'write') return undefined; // what was written is not recorded
        return this.#ask(() => v1.read(call.offset, new Uint8Array(Math.min(call.bytes, LARGEST_OTHER))));
      case 'data':
        return this.#dataV1(call, given);
      case 'register':
        return Object.hasOwn(fields, call.register) ? this.#register(call, given, takes) : undefined;
    }
  }

  #register(
    call: Extract<V1Call, { readonly call: 'register' }>,
    given: Uint8Array | undefined,
    takes: boolean,
  ): Answer {
    const { v1 } = this.#presented;
    const [kind, offset] = fields[call.register];
    const bytes = new Uint8Array(fieldWidth(kind));
    if (call.access === 'write') {
      if (given !== undefined) this.#put(this.#offset, given);
      putValue(bytes, call.value);
      return this.#ask(() => v1.write(offset, bytes));
    }
    const answer = this.#ask(() => v1.read(offset, bytes));
    const value = valueOf(answer.call);
    if (value === undefined) return answer;
    if (call.register === 'data_offset') {
      this.#offset = value;
      this.#recordedOffset = call.value ?? value;
    }
    if (call.register !== 'data_size') return answer;
    // a driver may count what is read of memory that nobody maps
    const data = takes ? this.#taken(value) : undefined;
    v1.readAhead?.();
    return { ...answer, data };
  }

  /** Accesses to a data section that the driver lets nobody map. */
  #dataV1(call: Extract<V1Call, { readonly call: 'data' }>, given: Uint8Array | undefined): Answer | undefined {
    const { v1 } = this.#presented;
    const offset = call.offset - this.#recordedOffset + this.#offset;
    if (call.direction === 'in') return given && this.#ask(() => v1.write(offset, given));
    if (call.bytes > v1.regionSize) return undefined;
    const into = new Uint8Array(call.bytes);
    const answer = this.#ask(() => v1.read(offset, into));
    return answer.call.errno === undefined ? { ...answer, data: into } : answer;
  }

  /** The buffer that the device shows. A driver that shows one outside of its region is refused, as by a VMM. */
  #taken(size: number): Uint8Array {
    const { v1 } = this.#presented;
    if (this.#offset + size > v1.regionSize) {
      throw new ShimError('ERR_DEVICE', `the device shows ${size} bytes at ${this.#offset} of ${v1.regionSize}`, {
        errno: 'EIO',
      });
    }
    const mapped = wholeMappedAt(v1, this.#offset, size);
    if (mapped !== undefined) return mapped.slice();
    const buffer = new Uint8Array(size);
    for (let done = 0; done < size;) {
      const offset = this.#offset + done;
      const piece = buffer.subarray(done, done + pieceAt(offset, this.#offset, size - done));
      whenReady(() => v1.read(offset, piece), patient());
      done += piece.length;
    }
    return buffer;
  }

  #put(offset: number, bytes: Uint8Array): void {
    const { v1 } = this.#presented;
    if (bytes.length > v1.regionSize - offset) return; // data_size says the same, and the device refuses that
    const room = wholeMappedAt(v1, offset, bytes.length);
    if (room === undefined) whenReady(() => v1.write(offset, bytes), patient());
    else room.set(bytes);
  }

  #inV2(call: V2Call, given: Uint8Array | undefined): Answer | undefined {
    const { v2 } = this.#presented;
    switch (call.call) {
      case 'get-state':
        return this.#ask(() => v2.getState());
      case 'set-state': {
        if (call.state.startsWith('(')) return undefined; // a number that is no state, which is refused before it comes here
        const state = parseV2State(call.state);
        return this.#ask(() => v2.setState(state));
      }
      case 'data-size':
        return this.#ask(() => v2.stopCopyLength());
      case 'precopy-info':
        return this.#onSession(call, (session) => this.#ask(() => session.precopyInfo()));
      case 'precopy-info-v2': {
        const ask = v2.precopyInfoV2;
        return ask && this.#ask(() => ask(call.wanted));
      }
      case 'reset':
        return this.#ask(() => v2.reset());
      case 'data':
        if (call.direction === 'out') return this.#onSession(call, (session) => this.#read(session, call.bytes ?? 0));
        return given && this.#onSession(call, (session) => this.#written(session, given));
    }
  }

  /** A call on the data fd; without a session, as on one that has ended. */
  #onSession(
    call: Extract<V2Call, { readonly call: 'data' | 'precopy-info' }>,
    act: (session: V2DataSession) => Answer,
  ): Answer {
    const session = this.#presented.v2.openSession();
    if (session !== undefined) return act(session);
    const what = call.call === 'data' ? { call: call.call, direction: call.direction } : { call: call.call };
    return { call: { protocol: 'v2', ...what, errno: 'ENODEV' }, data: undefined };
  }

  /** Reads as much as the recorded read gave; of one that gave nothing, whether there is nothing now. */
  #read(session: V2DataSession, length: number): Answer {
    const into = new Uint8Array(Math.max(1, Math.min(length, LARGEST_READ)));
    let done = 0;
    for (;;) {
      const answer = this.#ask(() => session.read(into.subarray(done)));
      const { call } = answer;
      const got = call.call === 'data' && call.protocol === 'v2' && call.errno === undefined ? call.bytes : 0;
      done += got;
      if (got > 0 && done < length) continue; // a read may be short
      if (done === 0) return answer;
      session.readAhead?.();
      return { call: { protocol: 'v2', call: 'data', direction: 'out', bytes: done }, data: into.subarray(0, done) };
    }
  }

  #written(session: V2DataSession, bytes: Uint8Array): Answer {
    for (let done = 0; ;) {
      const answer = this.#ask(() => session.write(bytes.subarray(done)));
      const { call } = answer;
      if (call.call !== 'data' || call.protocol !== 'v2' || call.errno !== undefined) return answer;
      done += call.bytes;
      if (call.bytes === 0 || done === bytes.length) return { call: { ...call, bytes: done }, data: undefined };
    }
  }

  /** Makes one call, and returns what was told of it: the first thing, as a bridge may do more. */
  #ask(act: () => unknown): Answer {
    try {
      whenReady(() => {
        this.#told = undefined;
        act();
      }, patient());
    } catch (error) {
      if (this.#told === undefined) throw error;
      if (isNotReady(error)) throw error;
    }
    const told = this.#told;
    if (told === undefined) throw new Error('a call on the device was not told of');
    return { call: deviceCall(told), data: undefined };
  }
}

/** A read of more is made as one of so much; whoever reads takes the rest with the next. */
const LARGEST_READ = 2 ** 30;
/** An access that is no register's is of a few bytes. */
const LARGEST_OTHER = 4096;

function valueOf(call: DeviceCall): number | undefined {
  return call.call === 'register' && call.errno === undefined ? call.value : undefined;
}

function putValue(into: Uint8Array, value: number): void {
  const view = new DataView(into.buffer);
  if (into.length === 4) view.setUint32(0, value, true);
  else view.setBigUint64(0, BigInt(value), true);
}

/** Waits for a device, and not for ever. */
function patient(): () => void {
  const end = performance.now() + PATIENCE;
  return () => {
    if (performance.now() > end) throw new ShimError('ERR_DEVICE', 'the device is never ready', { errno: 'ETIMEDOUT' });
    sleepUntilReady();
  };
}
