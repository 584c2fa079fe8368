import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { V1 } from '../../v1/states.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../../v2/device.ts';
import { V2, type V2State } from '../../v2/states.ts';
import { PassedOnV1 } from './passed-on-v1.ts';

/*
 * While data move, a bridge asks its device for the state with every access: of a device behind a socket that is as much as the access. A
 * device that is stopped to give or take its state leaves that when it is told to, or fails: then what moves data fails too. So it is
 * asked once, and again after whatever else a client does, or what failed.
 */

/** A device that answers with the state in which it was last seen, as long as only data move. */
export interface Steady {
  /** The client does something else than to move data. */
  forget(): void;
}

const [, STATE_AT] = vfio_device_migration_info.fields.device_state;

/** A v1 device of which device_state is asked for once while data move. */
export class SteadyV1 extends PassedOnV1 implements Steady {
  #known: Uint8Array | undefined;

  forget(): void {
    this.#known = undefined;
  }

  override read(offset: number, into: Uint8Array): void {
    if (offset !== STATE_AT || into.length !== 4) this.#guarded(() => this.device.read(offset, into));
    else if (this.#known !== undefined) into.set(this.#known);
    else {
      this.device.read(offset, into);
      const state = new DataView(into.buffer, into.byteOffset).getUint32(0, true);
      if (state === V1.STOP_COPY || state === V1.RESUMING) this.#known = into.slice();
    }
  }

  override bufferAt(offset: number, length: number): Uint8Array | undefined {
    return this.#guarded(() => super.bufferAt(offset, length));
  }

  override write(offset: number, from: Uint8Array): void {
    if (offset < STATE_AT + 4) this.forget();
    this.#guarded(() => this.device.write(offset, from));
  }

  override reset(): void {
    this.forget();
    this.device.reset();
  }

  #guarded<T>(access: () => T): T {
    try {
      return access();
    } catch (error) {
      this.forget();
      throw error;
    }
  }
}

/** A v2 device that is asked for its state once while data move. */
export class SteadyV2 implements V2Device, Steady {
  readonly migrationFlags: number;
  readonly precopyInfoV2: V2Device['precopyInfoV2'];
  readonly #device: V2Device;
  #known: V2State | undefined;

  constructor(device: V2Device) {
    this.#device = device;
    this.precopyInfoV2 = device.precopyInfoV2 && ((wanted) => device.precopyInfoV2?.(wanted));
    this.migrationFlags = device.migrationFlags;
  }

  forget(): void {
    this.#known = undefined;
  }

  getState(): V2State {
    if (this.#known !== undefined) return this.#known;
    const state = this.#device.getState();
    if (state === V2.STOP_COPY || state === V2.RESUMING) this.#known = state;
    return state;
  }

  setState(target: V2State): V2DataSession | undefined {
    this.forget();
    return this.#session(this.#device.setState(target));
  }

  openSession(): V2DataSession | undefined {
    return this.#session(this.#device.openSession());
  }

  stopCopyLength(): number {
    return this.#device.stopCopyLength();
  }

  reset(): void {
    this.forget();
    this.#device.reset();
  }

  #session(session: V2DataSession | undefined): V2DataSession | undefined {
    if (session === undefined) return undefined;
    const guarded = <T>(call: () => T): T => {
      try {
        return call();
      } catch (error) {
        this.forget();
        throw error;
      }
    };
    return {
      read: (into) => guarded(() => session.read(into)),
      ...(session.beginRead && { beginRead: (into) => guarded(() => session.beginRead?.(into)) }),
      write: (from) => guarded(() => session.write(from)),
      precopyInfo: (): PrecopyInfo => guarded(() => session.precopyInfo()),
      close: () => session.close(),
    };
  }
}
