import { randomFillSync, randomInt } from 'node:crypto';
import { sha256 } from '../hash.ts';

const PAGE = 4096;

/** Stands for the guest's driver: writes random bytes into the device's memory and remembers them. */
export class Guest {
  readonly #memory: Uint8Array;
  readonly #written: Uint8Array;

  constructor(memory: Uint8Array) {
    this.#memory = memory;
    this.#written = new Uint8Array(memory.length);
  }

  writeAll(): void {
    randomFillSync(this.#written);
    this.#memory.set(this.#written);
  }

  /** Writes pages anywhere; returns their bytes. */
  writeSome(pages: number): number {
    for (let n = 0; n < pages; n += 1) {
      const at = randomInt(this.#memory.length / PAGE) * PAGE;
      randomFillSync(this.#written, at, PAGE);
      this.#memory.set(this.#written.subarray(at, at + PAGE), at);
    }
    return pages * PAGE;
  }

  /** sha256 of what was written. */
  get written(): string {
    return sha256(this.#written);
  }
}
