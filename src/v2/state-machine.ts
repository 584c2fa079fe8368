import { ShimError } from '../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from './device.ts';
import { statePath } from './fsm.ts';
import { isPreCopy, isSaving, V2, v2StateName, type V2State } from './states.ts';

/** Which data session is open: none, one that is read, or one that is written. */
export type V2SessionKind = 'none' | 'saving' | 'resuming';

/** What a V2StateMachine remembers. Whoever keeps it where another process finds it can go on there. */
export interface V2Registers {
  /** Where the device is. */
  state: V2State;
  /** The data session that is open. */
  session: V2SessionKind;
  /** Counts the sessions, so that the data fd of one that has ended is not taken for the next one's. */
  sessionId: number;
}

/**
 * A v2 device of one's own: the walk through the kernel's state machine, and one data session at a time, which the saving states share
 * (linux/vfio.h, Linux 6.2: enum vfio_device_mig_state). A driver says what each arc does, as one of the kernel does in
 * `vfio_migration_ops::migration_set_state`, and moves the data.
 */
export abstract class V2StateMachine implements V2Device {
  readonly migrationFlags: number;
  readonly #at: V2Registers;

  /** `migrationFlags`: `VFIO_MIGRATION_*` bits, one of 1, 3, 5, 7. `registers`: what another object has left behind. */
  constructor(migrationFlags: number, registers: V2Registers = { state: V2.RUNNING, session: 'none', sessionId: 0 }) {
    this.migrationFlags = migrationFlags;
    this.#at = registers;
  }

  getState(): V2State {
    return this.#at.state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const session = this.#at.sessionId;
    for (const hop of statePath(this.migrationFlags, this.getState(), target)) this.takeArc(hop);
    return this.#at.sessionId === session ? undefined : this.openSession();
  }

  openSession(): V2DataSession | undefined {
    const { session, sessionId: id } = this.#at;
    if (session === 'none') return undefined;
    const check = (kind: V2SessionKind): void => {
      if (session !== kind) throw refusal('EBADF', 'is not open for this');
    };
    return {
      read: (into) => {
        check('saving');
        return this.readFrom(id, into);
      },
      write: (from) => {
        check('resuming');
        return this.writeTo(id, from);
      },
      precopyInfo: () => {
        if (session !== 'saving') throw refusal('ENOTTY', 'a resuming one has no precopy info');
        return this.precopyInfoOf(id);
      },
      close: () => {}, // the device's state stays, as with the kernel's data fds
    };
  }

  abstract stopCopyLength(): number;

  reset(): void {
    this.#at.state = V2.RUNNING;
    this.endSession();
  }

  /** One arc of the state machine, from getState() to `to`. If it throws, the device is where leaving() or entering() left it. */
  protected takeArc(to: V2State): void {
    const at = this.#at;
    this.leaving(at.state, to);
    const kind = kindIn(to);
    const begins = kind !== at.session && kind !== 'none';
    if (kind !== at.session) this.endSession();
    if (begins) {
      at.session = kind;
      at.sessionId += 1;
    }
    this.entering(to, begins);
    at.state = to;
  }

  /** Before an arc: throws if the driver does not take it, and nothing has changed. */
  protected leaving(_from: V2State, _to: V2State): void {
    // a driver without objections
  }

  /** The other end of the arc: a state is entered, with a session that begins or goes on. */
  protected entering(_to: V2State, _begins: boolean): void {
    // a driver that makes its data when it is read
  }

  /** The data session, if there is one, is over: a driver that keeps something for it forgets that, and calls this. */
  protected endSession(): void {
    this.#at.session = 'none';
  }

  /** Enters ERROR, which a device does by itself. Only reset() leads out of it. */
  protected breakDown(): void {
    this.#at.state = V2.ERROR;
    this.endSession();
  }

  /** Throws `ENODEV` if session `id` is not the one that is open. */
  protected checkSession(id: number): void {
    const { session, sessionId } = this.#at;
    if (session === 'none' || sessionId !== id) throw refusal('ENODEV', 'its session has ended');
  }

  /** A read of the data fd of session `id`. */
  protected readFrom(id: number, into: Uint8Array): number {
    this.checkSession(id);
    return this.read(into);
  }

  /** A write to the data fd of session `id`. */
  protected writeTo(id: number, from: Uint8Array): number {
    this.checkSession(id);
    return this.write(from);
  }

  /** The state is asked about before the session, as by the drivers in Linux 6.12. */
  protected precopyInfoOf(id: number): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) throw refusal('EINVAL', `no precopy info in ${v2StateName(state)}`);
    this.checkSession(id);
    return this.precopyInfo();
  }

  /** V2DataSession.read of the open session. */
  protected abstract read(into: Uint8Array): number;

  /** V2DataSession.write of the open session. */
  protected abstract write(from: Uint8Array): number;

  /** What pre-copy would still send. A driver without PRE_COPY is not asked. */
  protected precopyInfo(): PrecopyInfo {
    return { initialBytes: 0, dirtyBytes: 0 };
  }
}

function kindIn(state: V2State): V2SessionKind {
  if (isSaving(state)) return 'saving';
  return state === V2.RESUMING ? 'resuming' : 'none';
}

function refusal(errno: 'EBADF' | 'EINVAL' | 'ENODEV' | 'ENOTTY', why: string): ShimError {
  return new ShimError(errno === 'ENODEV' ? 'ERR_SESSION_ENDED' : 'ERR_DEVICE', `data fd: ${why}`, { errno });
}
