// A device of one's own, shown to v1 VMMs: V2StateMachine walks the states, presentV1 is the bridge.
// In a clone: npx tsx examples/own-device.ts
import { presentV1, ShimError, V1RegisterAccess, V1Restore, V1Save, V2, V2StateMachine, type V2State } from 'vfio-shim';
import { VFIO_MIGRATION_STOP_COPY } from 'vfio-shim/abi';

/** Its state is its memory, which is saved while the device is stopped. */
class MemoryDevice extends V2StateMachine {
  readonly #memory: Uint8Array;
  #moved = 0;

  constructor(memory: Uint8Array) {
    super(VFIO_MIGRATION_STOP_COPY);
    this.#memory = memory;
  }

  stopCopyLength(): number {
    return this.#memory.length;
  }

  protected override entering(_to: V2State, begins: boolean): void {
    if (begins) this.#moved = 0;
  }

  protected override leaving(from: V2State): void {
    if (from === V2.RESUMING && this.#moved < this.#memory.length) throw refusal('the state is incomplete');
  }

  protected read(into: Uint8Array): number {
    const piece = this.#memory.subarray(this.#moved, this.#moved + into.length);
    into.set(piece);
    this.#moved += piece.length;
    return piece.length;
  }

  protected write(from: Uint8Array): number {
    if (from.length > this.#memory.length - this.#moved) throw refusal('the state is larger than the device');
    this.#memory.set(from, this.#moved);
    this.#moved += from.length;
    return from.length;
  }
}

function refusal(why: string): ShimError {
  return new ShimError('ERR_DEVICE', `memory device: ${why}`, { errno: 'EINVAL' });
}

/** What a v1 VMM does at both ends. */
function migrate(from: Uint8Array, to: Uint8Array): string {
  const destination = presentV1(new MemoryDevice(to));
  const restore = new V1Restore(destination);
  const save = new V1Save(presentV1(new MemoryDevice(from)), (buffer) => restore.load(buffer));
  restore.setup();
  save.setup();
  const bytes = save.complete();
  restore.complete();
  return `${bytes} bytes, then device_state ${new V1RegisterAccess(destination).deviceState()}`;
}

const source = new Uint8Array(100_000).fill(7);
const destination = new Uint8Array(100_000);
console.log(migrate(source, destination)); // 100000 bytes, then device_state 1
console.log(Buffer.compare(source, destination) === 0); // true

try {
  migrate(source, new Uint8Array(200_000));
} catch (error) {
  if (!(error instanceof ShimError)) throw error;
  console.log(error.message); // memory device: the state is incomplete
}
