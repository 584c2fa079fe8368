import { struct } from '../../abi/struct.ts';
import { stateIn, type DeviceEvent, type Direction } from '../../device/device-event.ts';
import type { Protocol } from '../../device/migratable.ts';
import { sha256Of, type ByteStore } from '../../sim/byte-store.ts';
import { draftStateName, draftStates } from '../../v1/drafts/states.ts';
import { V1, v1StateName, withoutReserved } from '../../v1/states.ts';
import { V2, v2StateName } from '../../v2/states.ts';

/** The most states that a report lists; later ones are counted. */
const LISTED = 160;

/** What is counted while a device is served; it lies in the device's arena and so survives a change of supervisor. */
const device_report = struct('device_report', 64, {
  bytes_out: ['count', 0],
  buffers_out: ['count', 8],
  bytes_in: ['count', 16],
  buffers_in: ['count', 24],
  calls: ['count', 32],
  states: ['u32', 40],
  reset_due: ['u8', 44],
  /** The v1 buffer that the VMM sees has been counted. */
  counted: ['u8', 45],
  /** Where in the region the VMM was told that it lies. */
  data_offset: ['count', 48],
});

/** Bytes of memory for a counter. */
export const REPORT_SIZE = device_report.size + LISTED;

/** How often a device with `dma-peers` wrote to others: to such that take that in their state, and to such that do not. */
export interface PeerCounts {
  readonly peerWrites: number;
  readonly violations: number;
}

/** What a device does by itself: as far as it does. */
export interface OwnCounts extends Partial<PeerCounts> {
  /** How many interrupts an emulated device has raised. */
  readonly interrupts?: number;
}

/**
 * One line of `run --json`. Bytes and buffers are those of the migration data; `sha256` is of all guest-visible memory, null
 * for a device of the kernel, whose memory is not ours to see.
 */
export interface DeviceReport extends OwnCounts {
  readonly name: string;
  readonly device: string;
  readonly protocol: Protocol;
  readonly bytesOut: number;
  readonly buffersOut: number;
  readonly bytesIn: number;
  readonly buffersIn: number;
  readonly trappedCalls: number;
  readonly states: readonly string[];
  readonly statesOmitted: number;
  readonly sha256: string | null;
}

export class ReportCounter {
  readonly counts: ReturnType<typeof device_report.view>;
  readonly #states: Uint8Array;
  readonly #stateName: (value: number) => string;
  readonly #stateNumbers: ReadonlyMap<string, number>;
  readonly #protocol: Protocol;

  /** `protocol`: that of the device itself, whose states are noted. */
  constructor(memory: Uint8Array, protocol: Protocol) {
    this.counts = device_report.view(memory);
    this.#states = memory.subarray(device_report.size, device_report.size + LISTED);
    this.#protocol = protocol;
    const { name, numbers } = statesOf(protocol);
    this.#stateName = name;
    this.#stateNumbers = new Map(Object.entries(numbers));
  }

  /** A call on the device itself: notes the state, and returns its name if it is another than the last one. */
  ofDriver(event: DeviceEvent): string | undefined {
    const name = stateIn(event);
    const number = name === undefined ? undefined : this.#stateNumbers.get(name);
    return number === undefined ? undefined : this.state(number);
  }

  /** A call of the VMM: counts the migration data that it has moved, and returns which way they went if there were any. */
  ofVmm(event: DeviceEvent): Direction | undefined {
    switch (event.call) {
      case 'data':
        // of v1, the registers say how much it is
        if (event.protocol !== 'v2' || event.errno !== undefined || event.bytes === 0) return undefined;
        return this.moved(event.direction, event.bytes);
      case 'register':
        return this.#ofRegister(event);
      case 'reset':
        this.counts.counted = 0;
        return undefined;
      default:
        return undefined;
    }
  }

  /** A v1 buffer is shown until pending_bytes is read, over a change to stop-and-copy too, however often its size is read. */
  #ofRegister(event: Extract<DeviceEvent, { call: 'register' }>): Direction | undefined {
    if (event.protocol !== 'v1') return undefined; // a draft is presented by way of v1, where it is counted
    const { counts } = this;
    if (event.register === 'pending_bytes') counts.counted = 0;
    if (event.errno !== undefined) return undefined;
    const { access, register, value } = event;
    if (register === 'device_state' && access === 'write' && withoutReserved(value) !== V1.STOP_COPY) {
      counts.counted = 0;
    }
    if (register === 'data_offset') counts.data_offset = value;
    if (register !== 'data_size' || value === 0) return undefined;
    if (access === 'write') return this.moved('in', value);
    if (counts.counted === 1) return undefined;
    counts.counted = 1;
    return this.moved('out', value);
  }

  /** Notes a state, and returns its name if it is another than the last one. */
  state(value: number): string | undefined {
    const { counts } = this;
    const last = counts.states - 1;
    if (last >= 0 && last < LISTED && this.#states[last] === value) return undefined;
    if (counts.states < LISTED) this.#states[counts.states] = value;
    counts.states += 1;
    return this.#stateName(value);
  }

  moved(direction: Direction, bytes: number): Direction {
    const { counts } = this;
    if (direction === 'out') {
      counts.bytes_out += bytes;
      counts.buffers_out += 1;
    } else {
      counts.bytes_in += bytes;
      counts.buffers_in += 1;
    }
    return direction;
  }

  report(name: string, device: string, guestMemory: ByteStore | undefined): DeviceReport {
    const { counts } = this;
    const listed = Math.min(counts.states, LISTED);
    return {
      name,
      device,
      protocol: this.#protocol,
      bytesOut: counts.bytes_out,
      buffersOut: counts.buffers_out,
      bytesIn: counts.bytes_in,
      buffersIn: counts.buffers_in,
      trappedCalls: counts.calls,
      states: Array.from(this.#states.subarray(0, listed), this.#stateName),
      statesOmitted: counts.states - listed,
      sha256: guestMemory === undefined ? null : sha256Of(guestMemory),
    };
  }
}

/** The states of a protocol, by name and by number. */
export function statesOf(protocol: Protocol): {
  readonly name: (value: number) => string;
  readonly numbers: Readonly<Record<string, number>>;
} {
  switch (protocol) {
    case 'v1':
      return { name: v1StateName, numbers: V1 };
    case 'v2':
      return { name: v2StateName, numbers: V2 };
    default:
      return { name: (value) => draftStateName(protocol, value), numbers: draftStates[protocol] };
  }
}
