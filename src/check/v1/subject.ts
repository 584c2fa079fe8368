import type { ErrnoName } from '../../abi/errno.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { run } from '../../device/migratable.ts';
import type { V1Device } from '../../v1/device.ts';
import { V1RegisterAccess } from '../../v1/registers.ts';
import type { V1RegisterName } from '../../v1/region.ts';
import { V1Restore } from '../../v1/restore.ts';
import { V1Save } from '../../v1/save.ts';
import { V1, v1StateName, withoutReserved, type V1State } from '../../v1/states.ts';
import { Patience } from '../attempt.ts';
import { mustBe, NotTried, prepare } from '../rule.ts';

const LARGEST_STATE = 256 * 2 ** 20;
/** Buffers that are read in pre-copy at most: a device may go on for ever. */
const PRE_COPY_BUFFERS = 64;
/** A driver that never says that nothing is pending, in stop-and-copy. */
const MOST_BUFFERS = 2 ** 20;

const { fields } = vfio_device_migration_info;

/** A v1 device on which rules are tried. */
export class V1Subject {
  readonly device: V1Device;
  readonly registers: V1RegisterAccess;
  readonly #patience = new Patience();

  constructor(device: V1Device) {
    this.device = device;
    this.registers = new V1RegisterAccess(device);
  }

  /** Before each rule: the device runs. */
  begin(): void {
    this.device.reset();
    if (this.state() !== V1.RUNNING) run({ protocol: 'v1', device: this.device }, this.#patience.begin());
  }

  /** The same in the middle of a rule. */
  again(): void {
    prepare(() => this.begin());
  }

  await<T>(operation: () => T): T {
    return this.#patience.await(operation);
  }

  refusal(operation: () => unknown): ErrnoName | undefined {
    return this.#patience.refusal(operation);
  }

  state(): number {
    return withoutReserved(this.await(() => this.registers.rawDeviceState()));
  }

  set(state: number): void {
    this.await(() => this.registers.setDeviceState(state));
  }

  mustBeIn(state: V1State): void {
    const found = this.state();
    mustBe(found === state, `device_state is ${shown(found)}, not ${shown(state)}`);
  }

  come(state: V1State): void {
    prepare(() => {
      this.set(state);
      this.mustBeIn(state);
    });
  }

  /** The same, so that the device may leave the state: while resuming, a state has been written. */
  comeToLeave(state: V1State): void {
    if (state !== V1.RESUMING) {
      if (state !== V1.RUNNING) this.come(state);
      return;
    }
    const buffers = this.saved();
    prepare(() => this.loading(buffers));
  }

  /** The value of a register, whatever it is. */
  value(register: V1RegisterName): bigint {
    const [kind, offset] = fields[register];
    const bytes = new Uint8Array(kind === 'u32' ? 4 : 8);
    this.await(() => this.device.read(offset, bytes));
    const view = new DataView(bytes.buffer);
    return kind === 'u32' ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
  }

  /** As a VMM comes there, which makes a pre-copy before it. */
  comeToStopCopy(): void {
    this.come(V1.PRE_COPY);
    this.come(V1.STOP_COPY);
  }

  /** The buffer that stop-and-copy begins with. */
  firstBuffer(): { readonly offset: number; readonly size: number } {
    this.comeToStopCopy();
    return prepare(() => {
      if (this.await(() => this.registers.pendingBytes()) === 0) throw new NotTried('the device has no state');
      return this.await(() => this.registers.dataBuffer());
    });
  }

  /** What a save gives, buffer by buffer, as QEMU does it, and the device is left in STOP. `preCopy`: how many buffers are read in pre-copy. */
  save(preCopy: number): Uint8Array[] {
    const buffers: Uint8Array[] = [];
    let total = 0;
    const sink = (buffer: Uint8Array): void => {
      total += buffer.length;
      if (total > LARGEST_STATE || buffers.length > MOST_BUFFERS) {
        throw new NotTried(`the state has more than ${LARGEST_STATE} bytes or ${MOST_BUFFERS} buffers`);
      }
      buffers.push(buffer.slice());
    };
    const save = new V1Save(this.device, sink, this.#patience.begin());
    save.setup();
    for (let n = 0; n < Math.min(preCopy, PRE_COPY_BUFFERS); n += 1) {
      if (save.iterate() === 0) break;
    }
    save.stop();
    save.complete();
    return buffers;
  }

  /** A state of this device, which then runs. */
  saved(): Uint8Array[] {
    return prepare(() => {
      const buffers = this.save(0);
      this.again();
      if (buffers.length > 0) return buffers;
      throw new NotTried('the device has no state: nothing is pending');
    });
  }

  /** Begins to resume, and writes buffers. */
  loading(buffers: readonly Uint8Array[]): void {
    const restore = new V1Restore(this.device, this.#patience.begin());
    prepare(() => restore.setup());
    for (const buffer of buffers) restore.load(buffer);
  }

  load(buffers: readonly Uint8Array[]): void {
    this.loading(buffers);
    this.set(V1.RUNNING);
    this.mustBeIn(V1.RUNNING);
  }
}

/** As `3 (PRE_COPY)`. */
export function shown(state: number): string {
  const name = v1StateName(state);
  return name.startsWith('(') ? String(state) : `${state} (${name})`;
}
