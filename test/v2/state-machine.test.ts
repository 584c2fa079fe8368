import { expect, it } from 'vitest';
import { presentV1 } from '../../src/bridge/index.ts';
import { V1Restore, V1Save } from '../../src/v1/index.ts';
import { V2, V2StateMachine, type V2State } from '../../src/v2/index.ts';

/** A device whose whole state is `memory`, with STOP_COPY alone. */
class OwnDevice extends V2StateMachine {
  readonly memory: Uint8Array;
  #position = 0;

  constructor(memory: Uint8Array) {
    super(1);
    this.memory = memory;
  }

  stopCopyLength(): number {
    return this.memory.length;
  }

  protected override entering(_to: V2State, begins: boolean): void {
    if (begins) this.#position = 0;
  }

  protected read(into: Uint8Array): number {
    const piece = this.memory.subarray(this.#position, this.#position + into.length);
    into.set(piece);
    this.#position += piece.length;
    return piece.length;
  }

  protected write(from: Uint8Array): number {
    this.memory.set(from, this.#position);
    this.#position += from.length;
    return from.length;
  }
}

it('a device of one of its drivers migrates under a v1 VMM, and its old data fd ends with ENODEV', () => {
  const source = new OwnDevice(Uint8Array.from({ length: 5000 }, (_, n) => n % 251));
  const destination = new OwnDevice(new Uint8Array(5000));
  const restore = new V1Restore(presentV1(destination));
  const save = new V1Save(presentV1(source), (buffer) => restore.load(buffer));
  restore.setup();
  save.setup();
  save.complete();
  restore.complete();
  expect(destination.memory).toBeBytes(source.memory);
  expect(destination.getState()).toBe(V2.RUNNING);

  const session = source.setState(V2.STOP_COPY);
  source.setState(V2.STOP);
  expect(() => session?.read(new Uint8Array(1))).toThrow(expect.objectContaining({ errno: 'ENODEV' }));
  expect(() => source.setState(V2.PRE_COPY)).toThrow(expect.objectContaining({ code: 'ERR_TRANSITION' }));
});
