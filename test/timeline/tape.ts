import type { AccessLine, DriverCall, RecordingHeader } from '../../src/recording/format.ts';
import type { RecordingEntry } from '../../src/recording/reader.ts';
import { V1, type V1StateName } from '../../src/v1/states.ts';
import { recordingHeader } from '../support/recording-header.ts';

export const DEVICE = '0000:90:00.0';

/** A recording that a test makes, of a VMM that speaks v1: times are microseconds from its beginning. */
export class Tape {
  readonly #lines: RecordingEntry[];
  readonly #start: number;

  constructor(head: Partial<RecordingHeader> = {}) {
    const made = recordingHeader(head);
    this.#start = made.monotonic;
    this.#lines = [made];
  }

  get entries(): readonly RecordingEntry[] {
    return this.#lines;
  }

  add(line: RecordingEntry): this {
    this.#lines.push(line);
    return this;
  }

  /** The time of a moment of this recording. */
  at(time: number): number {
    return this.#start + time;
  }

  opened(time: number, device = DEVICE): this {
    return this.add({ kind: 'opened', time: this.at(time), device, protocol: 'v2', pid: 1, tid: 1 });
  }

  /** The VMM writes device_state, which takes 10 microseconds. */
  state(time: number, state: V1StateName, device = DEVICE, driver: readonly DriverCall[] = []): this {
    const call = {
      protocol: 'v1',
      call: 'register',
      access: 'write',
      register: 'device_state',
      value: V1[state],
      state,
    } as const;
    return this.access({ begin: this.at(time), us: 10, device, call, driver });
  }

  /** The VMM gets or gives a buffer, which takes 20 microseconds. */
  bytes(time: number, direction: 'out' | 'in', bytes: number, device = DEVICE): this {
    const access = direction === 'out' ? ('read' as const) : ('write' as const);
    const call = { protocol: 'v1', call: 'register', access, register: 'data_size', value: bytes } as const;
    return this.access({ begin: this.at(time), us: 20, device, call, moved: { direction, bytes } });
  }

  access(line: Partial<AccessLine> & Pick<AccessLine, 'call'>): this {
    return this.add({ kind: 'access', begin: this.at(0), us: 1, pid: 1, tid: 1, result: 4, ...line });
  }

  ended(time: number): this {
    return this.add({ kind: 'end', time: this.at(time), why: 'ended' });
  }
}

/** A source whose VM is stopped at 2000, by a clock that was set `late`. */
export function source(head: Partial<RecordingHeader> = {}): Tape {
  return new Tape({ host: 'one', ...head })
    .opened(0)
    .state(1000, 'PRE_COPY')
    .bytes(1500, 'out', 100)
    .state(2000, 'STOP_COPY')
    .bytes(2500, 'out', 1000)
    .bytes(2600, 'out', 24)
    .state(2700, 'STOP')
    .ended(5000);
}

/** Its destination, whose VM runs at 3000. */
export function destination(head: Partial<RecordingHeader> = {}): Tape {
  return new Tape({ host: 'two', ...head })
    .opened(0)
    .state(900, 'RESUMING')
    .bytes(1600, 'in', 100)
    .bytes(2550, 'in', 1000)
    .bytes(2650, 'in', 24)
    .state(2990, 'RUNNING')
    .ended(6000);
}
