import { OwnedFd } from '../sys/fd.ts';
import type { V2DataSession, V2Device } from '../v2/device.ts';
import { hasSession, V2, type V2State } from '../v2/states.ts';
import type { DataSessions } from '../vfio/port.ts';
import { KernelDataFd, type DataFdMemory } from './data-fd.ts';
import { KERNEL_LIVE_SIZE, kernel_live, KERNEL_STATE_SIZE, kernel_state } from './session-state.ts';
import { noStore, type SessionStore } from './session-store.ts';

export interface FdSessionOptions {
  readonly store?: SessionStore;
  /** `KERNEL_STATE_SIZE` bytes: what a successor goes on from. */
  readonly state?: Uint8Array;
  /** `KERNEL_LIVE_SIZE` bytes of shared memory: what is under way. */
  readonly live?: Uint8Array;
}

/** The sessions of a driver of the kernel, each with a data fd. */
export class FdSessions implements DataSessions {
  readonly #store: SessionStore;
  readonly #memory: DataFdMemory;
  #session: KernelDataFd | undefined;
  /** There may be a data fd in the store: this process has put it there, or one before it. */
  #kept = true;

  constructor(options: FdSessionOptions = {}) {
    this.#store = options.store ?? noStore;
    this.#memory = {
      my: kernel_state.view(options.state ?? new Uint8Array(KERNEL_STATE_SIZE)),
      live: kernel_live.view(options.live ?? new Uint8Array(KERNEL_LIVE_SIZE)),
    };
  }

  change<T>(request: () => T): T {
    const { live } = this.#memory;
    live.changing = 1;
    try {
      return request();
    } finally {
      live.changing = 0;
    }
  }

  begin(data_fd: number): V2DataSession {
    const { my } = this.#memory;
    this.end();
    const fd = new OwnedFd(data_fd);
    this.#kept = true;
    this.#store.put(my.session + 1, fd);
    my.session += 1;
    this.#session = new KernelDataFd(fd, this.#memory);
    this.#session.begin();
    return this.#session;
  }

  current(state: () => V2State): V2DataSession | undefined {
    this.#session ??= this.#adopt(state);
    return this.#session;
  }

  end(): void {
    if (!this.#kept) return;
    this.#session?.close();
    this.#session = undefined;
    this.#store.clear();
    this.#kept = false;
  }

  /**
   * For a process that takes over: gives up a session whose data fd is lost, because the predecessor was killed before it had put
   * it into the store. Nobody has seen anything of it; the call that asked for it is repeated and begins another. A session that
   * others have begun (a VMM that speaks v2 itself) is left alone.
   */
  abandonLost(device: V2Device): void {
    if (this.#memory.live.changing === 0) return;
    this.#memory.live.changing = 0;
    const state = device.getState();
    if (!hasSession(state) || device.openSession() !== undefined) return;
    try {
      device.setState(state === V2.STOP_COPY ? V2.STOP : V2.RUNNING);
    } catch {
      device.reset(); // RESUMING without data may refuse to be left
    }
  }

  /** The session that another process has begun, if its data fd is in the store. */
  #adopt(state: () => V2State): KernelDataFd | undefined {
    const { my } = this.#memory;
    const kept = this.#store.take();
    if (kept === undefined) return undefined;
    const { session, fd } = kept;
    const begun = session === my.session + 1; // by a call that was cut off, and is repeated
    if (session !== my.session && !begun) {
      fd.close();
      return undefined;
    }
    const now = state();
    if (!hasSession(now)) {
      fd.close();
      return undefined;
    }
    my.session = session;
    const dataFd = new KernelDataFd(fd, this.#memory);
    if (begun) dataFd.begin();
    else dataFd.adopt(now === V2.RESUMING);
    return dataFd;
  }
}
