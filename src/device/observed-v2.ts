import { errnoNameOf } from '../error.ts';
import type { V2DataSession, V2Device } from '../v2/device.ts';
import { v2StateName, type V2State } from '../v2/states.ts';
import type { V2Event } from './device-event.ts';
import { observedSession } from './observed-session.ts';

/** A v2 device that tells of each request, and has its data sessions tell of theirs. */
export class ObservedV2 implements V2Device {
  readonly migrationFlags: number;
  readonly #device: V2Device;
  readonly #sink: (event: V2Event, bytes?: Uint8Array) => void;
  readonly #clock: () => number;
  readonly precopyInfoV2: ((wanted: boolean) => void) | undefined;
  /** The session that the device gave last, and the observed one: if the device gives the same again, so does this object. */
  #session: V2DataSession | undefined;
  #observed: V2DataSession | undefined;

  constructor(device: V2Device, sink: (event: V2Event, bytes?: Uint8Array) => void, clock: () => number) {
    this.migrationFlags = device.migrationFlags;
    this.#device = device;
    this.#sink = sink;
    this.#clock = clock;
    if (device.precopyInfoV2 !== undefined) this.precopyInfoV2 = (wanted) => this.#precopyInfoV2(wanted);
  }

  #precopyInfoV2(wanted: boolean): void {
    try {
      this.#device.precopyInfoV2?.(wanted);
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'precopy-info-v2', wanted, errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'precopy-info-v2', wanted });
  }

  getState(): V2State {
    let state: V2State;
    try {
      state = this.#device.getState();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'get-state', errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'get-state', state: v2StateName(state) });
    return state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const state = v2StateName(target);
    let begun: V2DataSession | undefined;
    try {
      begun = this.#device.setState(target);
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'set-state', state, errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'set-state', state, session: begun !== undefined });
    return this.#observe(begun);
  }

  openSession(): V2DataSession | undefined {
    return this.#observe(this.#device.openSession());
  }

  #observe(session: V2DataSession | undefined): V2DataSession | undefined {
    if (session === undefined) return undefined;
    if (session !== this.#session) {
      this.#session = session;
      this.#observed = observedSession(session, this.#sink, this.#clock);
    }
    return this.#observed;
  }

  stopCopyLength(): number {
    let bytes: number;
    try {
      bytes = this.#device.stopCopyLength();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'data-size', errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'data-size', bytes });
    return bytes;
  }

  reset(): void {
    try {
      this.#device.reset();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v2', call: 'reset', errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v2', call: 'reset' });
  }
}
