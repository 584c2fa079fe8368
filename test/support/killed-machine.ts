import type { V1Device } from '../../src/v1/device.ts';
import type { TapeV1 } from './tape-v1.ts';

class Killed extends Error {}

/** What a presented device lies in: `state` counts once a call has ended, `live` at once. */
export interface Memory {
  readonly state: Uint8Array;
  readonly live: Uint8Array;
}

export interface Kill {
  /** The driver's data section is mapped. */
  readonly mapped: boolean;
  /** The access to the driver at which the process is killed; 0 for none. */
  readonly at: number;
  /** The driver has carried it out by then. */
  readonly after: boolean;
}

/**
 * A process that serves a v1 driver of the kernel is killed at one of its accesses. Its successor has the state of before the call, and
 * repeats the call; the driver has forgotten nothing.
 */
export class KilledMachine<D> {
  readonly tape: TapeV1;
  accesses = 0;
  readonly #kill: Kill;
  readonly #present: (driver: V1Device, memory: Memory) => D;
  readonly #committed: Uint8Array;
  readonly #left: Uint8Array;
  readonly #live: Uint8Array;
  #working = new Uint8Array(0);
  #device: D;

  constructor(
    tape: TapeV1,
    kill: Kill,
    sizes: { readonly state: number; readonly live: number },
    present: (driver: V1Device, memory: Memory) => D,
  ) {
    this.tape = tape;
    this.#kill = kill;
    this.#present = present;
    this.#committed = new Uint8Array(sizes.state);
    this.#left = new Uint8Array(sizes.live);
    this.#live = new Uint8Array(sizes.live);
    this.#device = this.#begin();
  }

  #begin(): D {
    this.#live.set(this.#left);
    this.#working = this.#committed.slice();
    return this.#present(this.#driver(), { state: this.#working, live: this.#live });
  }

  #driver(): V1Device {
    const { device } = this.tape;
    const { mapped, at, after } = this.#kill;
    const access = (carryOut: () => void): void => {
      this.accesses += 1;
      const killed = this.accesses === at;
      if (killed && !after) this.#die();
      carryOut();
      if (killed) this.#die();
    };
    return {
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: mapped ? device.mapped : undefined,
      read: (offset, into) => access(() => device.read(offset, into)),
      write: (offset, from) =>
        access(() => {
          device.write(offset, from);
          if (offset === 0) this.tape.section.fill(0xee); // a change of state may reuse the data section
        }),
      reset: () => device.reset(),
    };
  }

  /** Nothing that an exception would still do is done. */
  #die(): never {
    this.#left.set(this.#live);
    throw new Killed();
  }

  /** A call of the VMM's: what it did is kept once it is done; a successor repeats it. */
  call<T>(serve: (device: D) => T): T {
    for (;;) {
      try {
        const result = serve(this.#device);
        this.#committed.set(this.#working);
        return result;
      } catch (error) {
        if (!(error instanceof Killed)) {
          this.#committed.set(this.#working);
          throw error;
        }
        this.#device = this.#begin();
      }
    }
  }

  /** Something that is done between calls. */
  aside(act: (device: D) => void): void {
    try {
      act(this.#device);
      this.#committed.set(this.#working);
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      this.#device = this.#begin();
    }
  }
}

/** How many accesses to the driver something takes that nobody is killed in, as numbers from 1 on. */
export function everyAccess<D>(machine: KilledMachine<D>, run: (machine: KilledMachine<D>) => unknown): number[] {
  run(machine);
  return Array.from({ length: machine.accesses }, (_, n) => n + 1);
}
