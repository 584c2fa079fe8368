import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_MIG_DATA_READ,
  VFIO_USER_MIG_DATA_WRITE,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  vfio_user_mig_data,
  vfio_user_region_access,
} from '../../abi/vfio-user.ts';
import * as commands from '../../abi/vfio-user.ts';
import type { ErrnoName } from '../../abi/errno.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
} from '../../abi/vfio-v2.ts';
import type { DeviceEvent, V2Event } from '../../device/device-event.ts';
import { dataOf, regionName } from '../../recording/region-name.ts';
import { v1AccessEvent } from '../../device/observed-region.ts';
import { featureName } from '../../interpose/serve/request-names.ts';
import type { VfioCall } from '../../recording/format.ts';
import { hasSession, isV2State, V2, v2StateName } from '../../v2/states.ts';
import type { Message } from '../wire/message.ts';

/** How a command was answered: the reply's body and how many descriptors came with it, or why it was refused. */
export interface Answer {
  readonly body: Uint8Array;
  readonly fds: number;
  readonly errno: ErrnoName | undefined;
}

/** What a command was: a call on the device, with the migration data that it has moved; or something else. */
export interface Decoded {
  readonly event: DeviceEvent | undefined;
  readonly bytes: Uint8Array | undefined;
  readonly call: VfioCall | undefined;
  /** As the system call would return it that is the same with the kernel. */
  readonly result: number | 'fd';
  /** Of MIG_DATA_READ: how many bytes were asked for. */
  readonly asked?: number;
}

/** What a client sees of the device that it is connected to. */
export interface Seen {
  /** The index of the migration region; `undefined` if there is none. */
  readonly region: number | undefined;
  /** In which protocol a reset is told: that of the device, unless the client has spoken the other. */
  readonly protocol: 'v1' | 'v2' | undefined;
  /** The region's data section lies in memory that the client may map: what goes there by messages is no call on the device. */
  readonly isShared: boolean;
}

const HEADER = vfio_device_feature.size;
const NOTHING = new Uint8Array(0);
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(commands).flatMap(([name, number]) =>
    /^VFIO_USER_(?!F_|DEFAULT_)/.test(name) && typeof number === 'number' ? [[number, name] as const] : [],
  ),
);

/** Makes of a client's commands, and how they were answered, what a recording has of a VMM's system calls. */
export class MessageDecoder {
  readonly #seen: Seen;
  #protocol: Seen['protocol'];
  /** Which way the data of the session goes that the client has, if it has one: no descriptor tells. */
  #session: 'out' | 'in' | undefined;

  constructor(seen: Seen) {
    this.#seen = seen;
    this.#protocol = seen.protocol;
  }

  /** `time`: when it was answered, in microseconds of the events' clock. */
  decode(message: Pick<Message, 'command' | 'body'>, answer: Answer, time: number): Decoded {
    const decoded = this.#ofDevice(message, answer, time);
    if (decoded?.event?.protocol === 'v1' || decoded?.event?.protocol === 'v2') this.#protocol = decoded.event.protocol;
    return decoded ?? other(message, answer);
  }

  #ofDevice({ command, body }: Pick<Message, 'command' | 'body'>, answer: Answer, time: number): Decoded | undefined {
    switch (command) {
      case VFIO_USER_REGION_READ:
      case VFIO_USER_REGION_WRITE:
        return this.#access(command, body, answer, time);
      case VFIO_USER_DEVICE_RESET:
        return this.#reset(answer, time);
      case VFIO_USER_DEVICE_FEATURE:
        return this.#feature(body, answer, time);
      case VFIO_USER_MIG_DATA_READ:
        return withAsked(moved('out', answer.body, answer, time), body);
      case VFIO_USER_MIG_DATA_WRITE:
        return moved('in', body, answer, time);
      default:
        return undefined;
    }
  }

  #access(command: number, body: Uint8Array, { body: reply, errno }: Answer, time: number): Decoded | undefined {
    const head = vfio_user_region_access.size;
    if (body.length < head) return undefined;
    const { region, offset, count } = vfio_user_region_access.decode(body);
    if (region !== this.#seen.region || offset > Number.MAX_SAFE_INTEGER) return undefined;
    const isRead = command === VFIO_USER_REGION_READ;
    const bytes = (isRead ? reply : body).subarray(head, head + count);
    const whole = bytes.length === count ? bytes : new Uint8Array(Math.min(count, SMALL));
    if (whole.length !== count) return undefined; // it was refused, and says that it is longer than a register
    const event = v1AccessEvent(time, isRead ? 'read' : 'write', Number(offset), whole, errno);
    if (event.call === 'data' && this.#seen.isShared) return undefined;
    const isData = event.call === 'data' && errno === undefined;
    return { event, bytes: isData ? bytes : undefined, call: undefined, result: count };
  }

  #reset({ errno }: Answer, time: number): Decoded | undefined {
    const protocol = this.#protocol;
    if (protocol === undefined) return undefined;
    if (errno === undefined) this.#session = undefined;
    const reset = errno === undefined ? ({ time, call: 'reset' } as const) : ({ time, call: 'reset', errno } as const);
    return of(protocol === 'v1' ? { ...reset, protocol } : { ...reset, protocol });
  }

  #feature(body: Uint8Array, { body: reply, errno }: Answer, time: number): Decoded | undefined {
    if (body.length < HEADER) return undefined;
    const { flags } = vfio_device_feature.decode(body);
    if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return undefined;
    const feature = flags & VFIO_DEVICE_FEATURE_MASK;
    const [isGet, isSet] = [(flags & VFIO_DEVICE_FEATURE_GET) !== 0, (flags & VFIO_DEVICE_FEATURE_SET) !== 0];
    if (isGet === isSet) return undefined;
    if (feature === VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE) {
      const from = isSet ? body : reply;
      const { size } = vfio_device_feature_mig_state;
      const state =
        from.length < HEADER + size ? undefined : vfio_device_feature_mig_state.decode(from, HEADER).device_state;
      return isSet ? this.#setState(state, errno, time) : getState(state, errno, time);
    }
    if (feature !== VFIO_DEVICE_FEATURE_MIG_DATA_SIZE || !isGet) return undefined;
    if (errno !== undefined) return of({ time, protocol: 'v2', call: 'data-size', errno });
    if (reply.length < HEADER + vfio_device_feature_mig_data_size.size) return undefined;
    const { stop_copy_length } = vfio_device_feature_mig_data_size.decode(reply, HEADER);
    const bytes = Math.min(Number(stop_copy_length), Number.MAX_SAFE_INTEGER);
    return of({ time, protocol: 'v2', call: 'data-size', bytes });
  }

  #setState(state: number | undefined, errno: ErrnoName | undefined, time: number): Decoded | undefined {
    if (state === undefined) return undefined;
    const name = v2StateName(state);
    if (errno !== undefined) return of({ time, protocol: 'v2', call: 'set-state', state: name, errno });
    const way = !isV2State(state) || !hasSession(state) ? undefined : state === V2.RESUMING ? 'in' : 'out';
    const session = way !== undefined && way !== this.#session;
    this.#session = way;
    return of({ time, protocol: 'v2', call: 'set-state', state: name, session });
  }
}

/** A register's width, or that of an access that is refused as no register has it. */
const SMALL = 4096;

function of(event: DeviceEvent): Decoded {
  return { event, bytes: undefined, call: undefined, result: 0 };
}

function getState(state: number | undefined, errno: ErrnoName | undefined, time: number): Decoded | undefined {
  if (errno !== undefined) return of({ time, protocol: 'v2', call: 'get-state', errno });
  return state === undefined ? undefined : of({ time, protocol: 'v2', call: 'get-state', state: v2StateName(state) });
}

function moved(direction: 'out' | 'in', from: Uint8Array, { errno }: Answer, time: number): Decoded | undefined {
  const head = { time, protocol: 'v2', call: 'data', direction } as const;
  if (errno !== undefined) return of({ ...head, errno } satisfies V2Event);
  if (from.length < vfio_user_mig_data.size) return undefined;
  const { size } = vfio_user_mig_data.decode(from);
  const bytes = from.subarray(vfio_user_mig_data.size, vfio_user_mig_data.size + size);
  return { event: { ...head, bytes: bytes.length }, bytes, call: undefined, result: bytes.length };
}

function withAsked(read: Decoded | undefined, body: Uint8Array): Decoded | undefined {
  if (read === undefined || body.length < vfio_user_mig_data.size) return read;
  return { ...read, asked: vfio_user_mig_data.decode(body).size };
}

/** A command that no migration is about, or that has not what one must have. */
function other({ command, body }: Pick<Message, 'command' | 'body'>, { fds }: Answer): Decoded {
  const head = { protocol: 'vfio', call: 'message', request: NAMES.get(command) ?? `VFIO_USER_${command}` } as const;
  return { event: undefined, bytes: NOTHING, call: { ...head, ...about(command, body) }, result: fds > 0 ? 'fd' : 0 };
}

function about(command: number, body: Uint8Array): Pick<VfioCall, 'feature' | 'region' | 'offset' | 'bytes' | 'data'> {
  if (command === VFIO_USER_DEVICE_FEATURE && body.length >= HEADER) {
    return { feature: featureName(vfio_device_feature.decode(body).flags) };
  }
  const isAccess = command === VFIO_USER_REGION_READ || command === VFIO_USER_REGION_WRITE;
  if (!isAccess || body.length < vfio_user_region_access.size) return {};
  const { region, offset, count } = vfio_user_region_access.decode(body);
  const written = dataOf(body.subarray(vfio_user_region_access.size));
  const data = command === VFIO_USER_REGION_WRITE && written !== undefined ? { data: written } : {};
  return {
    region: regionName(region),
    ...data,
    offset: Math.min(Number(offset), Number.MAX_SAFE_INTEGER),
    bytes: count,
  };
}
