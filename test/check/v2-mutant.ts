import { failure } from '../support/errno.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../../src/v2/device.ts';
import { isPreCopy, type V2State } from '../../src/v2/states.ts';

/** What a driver does in place of what it should, call by call. `next` is the driver that is right. */
export interface V2Mutation {
  readonly flags?: number;
  setState?(next: V2Device, target: V2State): V2DataSession | undefined;
  getState?(next: V2Device): V2State;
  stopCopyLength?(next: V2Device): number;
  reset?(next: V2Device): void;
  read?(next: V2DataSession, into: Uint8Array, device: V2Device): number;
  write?(next: V2DataSession, from: Uint8Array, device: V2Device): number;
  precopyInfo?(next: V2DataSession, device: V2Device): PrecopyInfo;
}

/** A device with one habit of its own. */
export class V2Mutant implements V2Device {
  readonly migrationFlags: number;
  readonly #next: V2Device;
  readonly #mutation: V2Mutation;

  constructor(next: V2Device, mutation: V2Mutation) {
    this.#next = next;
    this.#mutation = mutation;
    this.migrationFlags = mutation.flags ?? next.migrationFlags;
  }

  getState(): V2State {
    return this.#mutation.getState?.(this.#next) ?? this.#next.getState();
  }

  setState(target: V2State): V2DataSession | undefined {
    const { setState } = this.#mutation;
    return this.#session(setState === undefined ? this.#next.setState(target) : setState(this.#next, target));
  }

  openSession(): V2DataSession | undefined {
    return this.#session(this.#next.openSession());
  }

  stopCopyLength(): number {
    return this.#mutation.stopCopyLength?.(this.#next) ?? this.#next.stopCopyLength();
  }

  reset(): void {
    const { reset } = this.#mutation;
    if (reset === undefined) this.#next.reset();
    else reset(this.#next);
  }

  #session(next: V2DataSession | undefined): V2DataSession | undefined {
    if (next === undefined) return undefined;
    const device = this.#next;
    const { read, write, precopyInfo } = this.#mutation;
    return {
      read: (into) => read?.(next, into, device) ?? next.read(into),
      write: (from) => write?.(next, from, device) ?? next.write(from),
      precopyInfo: () => precopyInfo?.(next, device) ?? next.precopyInfo(),
      close: () => next.close(),
    };
  }
}

/** A simulated driver that keeps every rule: the temporary end of its stream is ENOMSG, which it is not with the driver that it is made after. */
export function lawful(next: V2Device): V2Device {
  return new V2Mutant(next, {
    read(session, into, device) {
      const read = session.read(into);
      if (read === 0 && isPreCopy(device.getState())) throw failure('ENOMSG');
      return read;
    },
  });
}
