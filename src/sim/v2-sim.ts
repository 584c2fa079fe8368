import { struct } from '../abi/struct.ts';
import type { ShimError } from '../error.ts';
import type { PrecopyInfo } from '../v2/device.ts';
import { V2StateMachine, type V2Registers, type V2SessionKind } from '../v2/state-machine.ts';
import { V2, v2StateName, type V2State } from '../v2/states.ts';
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
  /** Of a driver with one buffer: how much of it there is to read, or was written. */
  filled: ['count', 48],
});
/** Where a driver's own registers lie in the state memory. */
export const PRIVATE_OFFSET = sim_v2_state.size;

export const Session = { NONE: 0, SAVING: 1, RESUMING: 2 } as const;
const KINDS: readonly V2SessionKind[] = ['none', 'saving', 'resuming'];

type Registers = ReturnType<typeof sim_v2_state.view>;

/** The state machine's registers, in the device's state memory. */
class StoredRegisters implements V2Registers {
  readonly #my: Registers;

  constructor(my: Registers) {
    this.#my = my;
    if (my.state_plus_one === 0) this.state = V2.RUNNING;
  }

  get state(): V2State {
    return (this.#my.state_plus_one - 1) as V2State;
  }

  set state(state: V2State) {
    this.#my.state_plus_one = state + 1;
  }

  get session(): V2SessionKind {
    return KINDS[this.#my.session] ?? 'none';
  }

  set session(kind: V2SessionKind) {
    this.#my.session = KINDS.indexOf(kind);
  }

  get sessionId(): number {
    return this.#my.session_id;
  }

  set sessionId(id: number) {
    this.#my.session_id = id;
  }
}

/**
 * What simulated v2 devices have in common: the state machine in memory that a successor process finds, and faults. A driver says
 * what becomes of the data.
 */
export abstract class SimV2 extends V2StateMachine {
  protected readonly my: Registers;
  /** Bytes that one read or write of the data may move. */
  protected readonly most: number;
  readonly #faults: Faults;

  constructor(values: StreamValues, migrationFlags: number, memory: SimMemory) {
    const my = sim_v2_state.view(memory.state);
    super(migrationFlags, new StoredRegisters(my));
    this.my = my;
    this.most = values.short > 0 ? values.short : Number.MAX_SAFE_INTEGER;
    this.#faults = new Faults(values, my, memory.state);
  }

  protected override takeArc(to: V2State): void {
    const fault = this.#faults.beforeEntry(v2StateName(to));
    if (fault !== undefined) {
      this.entryFailed(to);
      throw this.failed(fault);
    }
    super.takeArc(to);
  }

  protected abstract override leaving(from: V2State, to: V2State): void;

  /** A fault has kept the device out of a state. */
  protected entryFailed(_to: V2State): void {
    // most drivers are where they were
  }

  protected override endSession(): void {
    super.endSession();
    const { my } = this;
    my.position = 0;
    my.refused = 0;
    my.filled = 0;
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

  protected abstract override precopyInfo(): PrecopyInfo;
}
