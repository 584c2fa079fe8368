import { struct } from '../abi/struct.ts';
import type { ShimError } from '../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, isSaving, V2, v2StateName, type V2State } from '../v2/states.ts';
import type { StreamValues } from './common-options.ts';
import type { Fault } from './fault.ts';
import { faultError, Faults } from './faults.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';

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
  /** Of a driver with one buffer: how much of it there is to read, or was written. */
  filled: ['count', 48],
});
/** Where a driver's own registers lie in the state memory. */
export const PRIVATE_OFFSET = sim_v2_state.size;

export const Session = { NONE: 0, SAVING: 1, RESUMING: 2 } as const;

/**
 * What all simulated v2 devices have in common: the walk through the states, one data session at a time, and faults. A driver says
 * what becomes of the data.
 */
export abstract class SimV2 implements V2Device {
  readonly migrationFlags: number;
  protected readonly my: ReturnType<typeof sim_v2_state.view>;
  /** Bytes that one read or write of the data may move. */
  protected readonly most: number;
  readonly #faults: Faults;

  constructor(values: StreamValues, migrationFlags: number, memory: SimMemory) {
    this.migrationFlags = migrationFlags;
    this.my = sim_v2_state.view(memory.state);
    this.most = values.short > 0 ? values.short : Number.MAX_SAFE_INTEGER;
    this.#faults = new Faults(values, this.my, memory.state);
    if (this.my.state_plus_one === 0) this.#state = V2.RUNNING;
  }

  getState(): V2State {
    return (this.my.state_plus_one - 1) as V2State;
  }

  setState(target: V2State): V2DataSession | undefined {
    const session = this.my.session_id;
    for (const hop of statePath(this.migrationFlags, this.getState(), target)) {
      const fault = this.#faults.beforeEntry(v2StateName(hop));
      if (fault !== undefined) {
        this.entryFailed(hop);
        throw this.failed(fault);
      }
      this.#enter(hop);
    }
    return this.my.session_id === session ? undefined : this.openSession();
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.my;
    return session === Session.NONE ? undefined : new SimSession(this, session_id, session);
  }

  abstract stopCopyLength(): number;

  reset(): void {
    this.#state = V2.RUNNING;
    this.endSession();
  }

  set #state(state: V2State) {
    this.my.state_plus_one = state + 1;
  }

  /** One arc of the FSM. */
  #enter(to: V2State): void {
    const { my } = this;
    const from = this.getState();
    this.leaving(from, to);
    const kind = isSaving(to) ? Session.SAVING : to === V2.RESUMING ? Session.RESUMING : Session.NONE;
    const begins = kind !== my.session && kind !== Session.NONE;
    if (kind !== my.session) this.endSession();
    if (begins) {
      my.session = kind;
      my.session_id += 1;
    }
    this.entering(to, begins);
    this.#state = to;
  }

  /** Before an arc: throws if the driver does not take it, and nothing has changed. */
  protected abstract leaving(from: V2State, to: V2State): void;

  /** A state is entered, with a session that begins or goes on. */
  protected entering(_to: V2State, _begins: boolean): void {
    // most drivers make their data when it is read
  }

  /** A fault has kept the device out of a state. */
  protected entryFailed(_to: V2State): void {
    // most drivers are where they were
  }

  protected endSession(): void {
    const { my } = this;
    my.session = Session.NONE;
    my.position = 0;
    my.refused = 0;
    my.filled = 0;
  }

  /** Enters ERROR, which a device does by itself. */
  protected breakDown(): void {
    this.#state = V2.ERROR;
    this.endSession();
  }

  /** What a fault that has struck throws. */
  protected failed(fault: Fault): ShimError {
    if (fault.fatal) this.breakDown();
    return faultError(fault);
  }

  /** Before a read or write of data: says "not yet" if that was asked for, and returns a fault that strikes. */
  protected faultOf(step: 'read' | 'write'): Fault | undefined {
    return this.#faults.beforeData(step);
  }

  protected strike(step: 'read' | 'write'): void {
    const fault = this.faultOf(step);
    if (fault !== undefined) throw this.failed(fault);
  }

  /** @internal */
  checkSession(id: number): void {
    if (this.my.session === Session.NONE || this.my.session_id !== id) {
      throw simError('ENODEV', 'its session has ended');
    }
  }

  /** @internal For the data fd of session `id`. */
  writeTo(id: number, from: Uint8Array): number {
    this.checkSession(id);
    return this.write(from);
  }

  /** @internal The state is asked about before the session, as by the drivers in Linux 6.12. */
  precopyInfoOf(id: number): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) throw simError('EINVAL', `no precopy info in ${v2StateName(state)}`);
    this.checkSession(id);
    return this.precopyInfo();
  }

  /** @internal */
  abstract read(into: Uint8Array): number;

  protected abstract write(from: Uint8Array): number;

  protected abstract precopyInfo(): PrecopyInfo;
}

class SimSession implements V2DataSession {
  readonly #device: SimV2;
  readonly #id: number;
  readonly #kind: number;

  constructor(device: SimV2, id: number, kind: number) {
    this.#device = device;
    this.#id = id;
    this.#kind = kind;
  }

  read(into: Uint8Array): number {
    this.#checkKind(Session.SAVING);
    this.#device.checkSession(this.#id);
    return this.#device.read(into);
  }

  write(from: Uint8Array): number {
    this.#checkKind(Session.RESUMING);
    return this.#device.writeTo(this.#id, from);
  }

  precopyInfo(): PrecopyInfo {
    if (this.#kind !== Session.SAVING) throw simError('ENOTTY', 'a resuming data fd has no precopy info');
    return this.#device.precopyInfoOf(this.#id);
  }

  #checkKind(kind: number): void {
    if (this.#kind !== kind) throw simError('EBADF', 'the data fd is not open for this');
  }

  close(): void {
    // the device's state stays, as with the kernel's data fds
  }
}
