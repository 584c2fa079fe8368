import type { PrecopyInfo, V2DataSession, V2Device } from '../../src/v2/device.ts';
import { isPreCopy, V2, v2StateName, type V2State } from '../../src/v2/states.ts';
import { join } from './bytes.ts';
import { failure } from './errno.ts';

export type V2Call = 'setState' | 'read' | 'write' | 'precopyInfo' | 'stopCopyLength' | 'reset';

export interface SpyV2Options {
  /** Called before a call reaches the device; what it throws is the call's answer. */
  before?(call: V2Call, argument: number): void;
  /** The most bytes that this read or write may move. */
  limit?(call: 'read' | 'write', length: number): number;
  /** Answers the temporary end of the stream in PRE_COPY with ENOMSG, as mlx5 does, and not with 0. */
  readonly enomsg?: boolean;
}

/** The bytes that went through one data session. */
export interface Traffic {
  readonly out: Uint8Array[];
  readonly in: Uint8Array[];
}

/** A device between the one under test and its user: records every call and byte, and fails if told. */
export class SpyV2 implements V2Device {
  readonly device: V2Device;
  readonly log: string[] = [];
  readonly sessions: Traffic[] = [];
  options: SpyV2Options;
  #broken = false;

  constructor(device: V2Device, options: SpyV2Options = {}) {
    this.device = device;
    this.options = options;
  }

  get migrationFlags(): number {
    return this.device.migrationFlags;
  }

  getState(): V2State {
    return this.#broken ? V2.ERROR : this.device.getState();
  }

  /** The device fails by itself: ERROR, its session gone, until a reset. */
  break(): void {
    this.#broken = true;
  }

  setState(target: V2State): V2DataSession | undefined {
    const name = v2StateName(target);
    try {
      this.options.before?.('setState', target);
      if (this.#broken) throw failure('EINVAL', 'ERR_TRANSITION');
      const session = this.device.setState(target);
      this.log.push(`setState ${name}`);
      if (session === undefined) return undefined;
      this.sessions.push({ out: [], in: [] });
      return this.#spied(session);
    } catch (error) {
      this.log.push(`setState ${name} failed`);
      throw error;
    }
  }

  openSession(): V2DataSession | undefined {
    const session = this.#broken ? undefined : this.device.openSession();
    return session === undefined ? undefined : this.#spied(session);
  }

  stopCopyLength(): number {
    this.options.before?.('stopCopyLength', 0);
    return this.device.stopCopyLength();
  }

  reset(): void {
    this.options.before?.('reset', 0);
    this.log.push('reset');
    this.#broken = false;
    this.device.reset();
  }

  /** What the latest session has given, or taken. */
  bytes(direction: 'out' | 'in'): Uint8Array {
    return join(this.sessions.at(-1)?.[direction] ?? []);
  }

  #spied(session: V2DataSession): V2DataSession {
    const traffic = this.sessions.at(-1) ?? { out: [], in: [] };
    const limit = (call: 'read' | 'write', length: number): number =>
      Math.min(length, this.options.limit?.(call, length) ?? length);
    return {
      read: (into) => {
        this.options.before?.('read', into.length);
        const length = session.read(into.subarray(0, limit('read', into.length)));
        if (length > 0) traffic.out.push(into.slice(0, length));
        if (length === 0 && this.options.enomsg === true && isPreCopy(this.getState())) throw failure('ENOMSG');
        this.log.push(`read ${into.length}: ${length}`);
        return length;
      },
      write: (from) => {
        this.options.before?.('write', from.length);
        const length = session.write(from.subarray(0, limit('write', from.length)));
        traffic.in.push(from.slice(0, length));
        this.log.push(`write ${from.length}: ${length}`);
        return length;
      },
      precopyInfo: (): PrecopyInfo => {
        this.options.before?.('precopyInfo', 0);
        return session.precopyInfo();
      },
      close: () => {
        this.log.push('close');
        session.close();
      },
    };
  }
}
