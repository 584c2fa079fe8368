import { struct } from '../abi/struct.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, isSaving, V2, v2StateName, type V2State } from '../v2/states.ts';
import type { StreamValues } from './common-options.ts';
import type { Fault } from './fault.ts';
import { faultError, Faults } from './faults.ts';
import type { SimMemory } from './memory.ts';

/** The registers of a simulated v2 device. `state` is stored plus one, so that fresh memory is told from ERROR. */
const sim_v2_state = struct('sim_v2_state', 64, {
  state_plus_one: ['u32', 0],
  session: ['u32', 4],
  position: ['count', 8],
  session_id: ['count', 16],
  reads: ['u32', 24],
  writes: ['u32', 28],
  blocked: ['u32', 36],
  /** What a session's data has done to the device: checked, refused. */
  refused: ['u32', 40],
});
const PRIVATE_OFFSET = sim_v2_state.size;

const Session = { NONE: 0, SAVING: 1, RESUMING: 2 } as const;

/** What distinguishes one driver from another: its stream and its habits. */
export interface V2Driver {
  readonly migrationFlags: number;
  /** What begins the stream, and what a destination checks. */
  readonly setup: Uint8Array;
  /** Bytes of the stream behind `setup`. */
  readonly payloadSize: number;
  /** Copies payload from `position` on; `into` ends within the payload. */
  readPayload(position: number, into: Uint8Array): void;
  writePayload(position: number, from: Uint8Array): void;
  /** The errno with which a destination refuses this setup part, while it is being written. */
  checkSetup(setup: Uint8Array): ErrnoName | undefined;
  /** A setup that is refused is not asked about again: the driver takes the rest and lets the device run (mtty). */
  readonly forgetsRefusal: boolean;
}

/**
 * A simulated device with a v2 driver, as the drivers in Linux 6.12 behave: the setup part is readable in PRE_COPY, whose
 * temporary end reads as 0, and one session goes on into STOP_COPY.
 */
export class SimV2Device implements V2Device {
  readonly migrationFlags: number;
  readonly #driver: V2Driver;
  readonly #my: ReturnType<typeof sim_v2_state.view>;
  readonly #faults: Faults;
  /** Bytes that one read or write of the data may move. */
  readonly #most: number;
  /** The setup part that is being written, in the device's state memory. */
  readonly #incoming: Uint8Array;

  constructor(values: StreamValues, driver: V2Driver, memory: SimMemory) {
    this.migrationFlags = driver.migrationFlags;
    this.#driver = driver;
    this.#my = sim_v2_state.view(memory.state);
    this.#most = values.short > 0 ? values.short : Number.MAX_SAFE_INTEGER;
    this.#faults = new Faults(values, this.#my, memory.state);
    this.#incoming = memory.state.subarray(PRIVATE_OFFSET, PRIVATE_OFFSET + driver.setup.length);
    if (this.#my.state_plus_one === 0) this.#state = V2.RUNNING;
  }

  getState(): V2State {
    return (this.#my.state_plus_one - 1) as V2State;
  }

  setState(target: V2State): V2DataSession | undefined {
    const session = this.#my.session_id;
    for (const hop of statePath(this.migrationFlags, this.getState(), target)) {
      const fault = this.#faults.beforeEntry(v2StateName(hop));
      if (fault !== undefined) throw this.#fail(fault);
      this.#enter(hop);
    }
    return this.#my.session_id === session ? undefined : this.openSession();
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.#my;
    return session === Session.NONE ? undefined : new SimSession(this, session_id, session);
  }

  stopCopyLength(): number {
    return this.#total;
  }

  reset(): void {
    this.#state = V2.RUNNING;
    this.#my.session = Session.NONE;
  }

  set #state(state: V2State) {
    this.#my.state_plus_one = state + 1;
  }

  get #total(): number {
    return this.#driver.setup.length + this.#driver.payloadSize;
  }

  /** One arc of the FSM. */
  #enter(to: V2State): void {
    const my = this.#my;
    if (this.getState() === V2.RESUMING && (my.position < this.#total || this.#isRefused())) {
      throw device('EINVAL', `leaving RESUMING: ${my.position} of ${this.#total} bytes were loaded`);
    }
    const kind = isSaving(to) ? Session.SAVING : to === V2.RESUMING ? Session.RESUMING : Session.NONE;
    if (kind !== my.session) {
      my.session = kind;
      my.position = 0;
      my.refused = 0;
      if (kind !== Session.NONE) my.session_id += 1;
    }
    this.#state = to;
  }

  #isRefused(): boolean {
    return this.#my.refused === 1 && !this.#driver.forgetsRefusal;
  }

  #fail(fault: Fault): ShimError {
    if (fault.fatal) {
      this.#state = V2.ERROR;
      this.#my.session = Session.NONE;
    }
    return faultError(fault);
  }

  /** @internal */
  checkSession(id: number): void {
    if (this.#my.session === Session.NONE || this.#my.session_id !== id)
      throw device('ENODEV', 'its session has ended');
  }

  /** @internal */
  read(into: Uint8Array): number {
    const fault = this.#faults.beforeData('read');
    if (fault !== undefined) throw this.#fail(fault);
    const my = this.#my;
    const { setup } = this.#driver;
    const end = isPreCopy(this.getState()) ? setup.length : this.#total;
    const length = Math.min(this.#most, into.length, Math.max(0, end - my.position));
    const fromSetup = Math.max(0, Math.min(length, setup.length - my.position));
    if (fromSetup > 0) into.set(setup.subarray(my.position, my.position + fromSetup));
    if (length > fromSetup) {
      this.#driver.readPayload(my.position + fromSetup - setup.length, into.subarray(fromSetup, length));
    }
    my.position += length;
    return length;
  }

  /** @internal */
  write(from: Uint8Array): number {
    const fault = this.#faults.beforeData('write');
    if (fault !== undefined) throw this.#fail(fault);
    const my = this.#my;
    if (from.length > this.#total - my.position) throw device('ENOMEM', `the state has ${this.#total} bytes`);
    if (this.#isRefused()) throw device('EINVAL', 'the state was refused');
    const { setup } = this.#driver;
    const piece = from.subarray(0, this.#most);
    const toSetup = Math.max(0, Math.min(piece.length, setup.length - my.position));
    if (toSetup > 0) this.#incoming.set(piece.subarray(0, toSetup), my.position);
    const completesSetup = toSetup > 0 && my.position + toSetup === setup.length;
    const errno = completesSetup ? this.#driver.checkSetup(this.#incoming) : undefined;
    if (errno !== undefined) my.refused = 1;
    if (piece.length > toSetup && (errno === undefined || this.#driver.forgetsRefusal)) {
      this.#driver.writePayload(my.position + toSetup - setup.length, piece.subarray(toSetup));
    }
    my.position += piece.length;
    if (errno !== undefined) throw device(errno, 'the state is of an incompatible device');
    return piece.length;
  }

  /** @internal */
  precopyInfo(): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) throw device('EINVAL', `no precopy info in ${v2StateName(state)}`);
    return { initialBytes: Math.max(0, this.#driver.setup.length - this.#my.position), dirtyBytes: 0 };
  }
}

class SimSession implements V2DataSession {
  readonly #device: SimV2Device;
  readonly #id: number;
  readonly #kind: number;

  constructor(device: SimV2Device, id: number, kind: number) {
    this.#device = device;
    this.#id = id;
    this.#kind = kind;
  }

  read(into: Uint8Array): number {
    this.#check(Session.SAVING);
    return this.#device.read(into);
  }

  write(from: Uint8Array): number {
    this.#check(Session.RESUMING);
    return from.length === 0 ? 0 : this.#device.write(from);
  }

  /** Looks at the state before the session, as the drivers in Linux 6.12 do. */
  precopyInfo(): PrecopyInfo {
    if (this.#kind !== Session.SAVING) throw device('ENOTTY', 'a resuming data fd has no precopy info');
    const info = this.#device.precopyInfo();
    this.#device.checkSession(this.#id);
    return info;
  }

  #check(kind: number): void {
    if (this.#kind !== kind) throw device('EBADF', 'the data fd is not open for this');
    this.#device.checkSession(this.#id);
  }

  close(): void {
    // the device's state stays, as with the kernel's data fds
  }
}

function device(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated device: ${why}`, { errno });
}
