import { ShimError } from '../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, isSaving, parseV2State, V2, v2StateName, type V2State } from '../v2/states.ts';
import { simError } from './sim-error.ts';
import { Playing, type TapePlayer } from './tape-player.ts';

/** A recorded v2 driver: goes through the states as any, with the data and the errors of its tape. */
export class RecordedV2 implements V2Device {
  readonly migrationFlags: number;
  readonly #player: TapePlayer;

  constructor(player: TapePlayer) {
    this.#player = player;
    this.migrationFlags = player.tape.migrationFlags;
    if (player.my.state_plus_one === 0) this.#state = V2.RUNNING;
  }

  getState(): V2State {
    return (this.#player.my.state_plus_one - 1) as V2State;
  }

  set #state(state: V2State) {
    this.#player.my.state_plus_one = state + 1;
  }

  setState(target: V2State): V2DataSession | undefined {
    const player = this.#player;
    const from = this.getState();
    if (from === target) return undefined;
    const hops = statePath(this.migrationFlags, from, target);
    player.changes(v2StateName(from), v2StateName(target), (after) => this.#leaveIn(after));
    const before = player.my.session_id;
    for (const hop of hops) this.#enter(hop);
    return player.my.session_id === before ? undefined : this.openSession();
  }

  /** Where a failed change has left the device; a session goes on if it is still in its states. */
  #leaveIn(name: string): void {
    const state = parseV2State(name);
    if (!(isSaving(state) && this.#player.my.session === Playing.OUT)) this.#player.end();
    this.#state = state;
  }

  #enter(to: V2State): void {
    const player = this.#player;
    if (this.getState() === V2.RESUMING) player.checkLoaded();
    const kind = isSaving(to) ? Playing.OUT : to === V2.RESUMING ? Playing.IN : Playing.NONE;
    if (kind === Playing.NONE) player.end();
    else if (kind !== player.my.session) player.begin(kind);
    this.#state = to;
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.#player.my;
    return session === Playing.NONE ? undefined : new RecordedSession(this, session_id);
  }

  stopCopyLength(): number {
    const state = v2StateName(this.getState());
    const bytes = this.#player.tape.dataSizes[state];
    if (bytes === undefined)
      throw simError('ENOTTY', `nobody asked for MIG_DATA_SIZE in ${state} when this was recorded`);
    return bytes;
  }

  reset(): void {
    this.#player.end();
    this.#state = V2.RUNNING;
  }

  #check(id: number): void {
    const { session, session_id } = this.#player.my;
    if (session === Playing.NONE || session_id !== id) throw simError('ENODEV', 'its session has ended');
  }

  /** @internal */
  read(id: number, into: Uint8Array): number {
    const player = this.#player;
    this.#check(id);
    if (player.my.session !== Playing.OUT) throw simError('EBADF', 'the data fd is not open for this');
    const { out } = player;
    player.strike(out);
    const isRunning = isPreCopy(this.getState());
    const bytes = player.next(isRunning ? out.preCopy : out.bytes, into.length);
    into.set(bytes);
    player.my.position += bytes.length;
    if (bytes.length > 0 || into.length === 0) return bytes.length;
    if (!isRunning) player.checkEnd();
    else if (out.nothingNow !== null)
      throw new ShimError('ERR_NO_DATA_NOW', 'simulated device: no data now', { errno: out.nothingNow });
    return 0;
  }

  /** @internal */
  write(id: number, from: Uint8Array): number {
    const player = this.#player;
    this.#check(id);
    if (player.my.session !== Playing.IN) throw simError('EBADF', 'the data fd is not open for this');
    player.take(from);
    return from.length;
  }

  /** @internal */
  precopyInfo(id: number): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) throw simError('EINVAL', `no precopy info in ${v2StateName(state)}`);
    this.#check(id);
    const info = this.#player.info('PRE_COPY');
    if (info === undefined) throw this.#player.unrecorded('ENOTTY', 'VFIO_MIG_GET_PRECOPY_INFO');
    return { initialBytes: info.initialBytes, dirtyBytes: info.dirtyBytes };
  }
}

class RecordedSession implements V2DataSession {
  readonly #device: RecordedV2;
  readonly #id: number;

  constructor(device: RecordedV2, id: number) {
    this.#device = device;
    this.#id = id;
  }

  read(into: Uint8Array): number {
    return this.#device.read(this.#id, into);
  }

  write(from: Uint8Array): number {
    return this.#device.write(this.#id, from);
  }

  precopyInfo(): PrecopyInfo {
    return this.#device.precopyInfo(this.#id);
  }

  close(): void {
    // the device's state stays, as with the kernel's data fds
  }
}
