import type { V1Device } from '../../src/v1/device.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { killHard } from '../../src/vmm/child.ts';
import { serving } from './serving.ts';

/** A device with a migration region. */
type RegionDevice<M> = Omit<V1Device, 'mapped'> & { readonly mapped: M };

/**
 * Such a device of a program under the shim, which kills its supervisor before each register access: each is served by another.
 * Data may be moved without a supervisor.
 */
export class Interrupted<M extends V1Device['mapped']> implements RegionDevice<M> {
  readonly regionSize: number;
  readonly dataSection: V1Device['dataSection'];
  readonly mapped: M;
  accesses = 0;
  /** The supervisors that were killed. */
  readonly killed: number[] = [];
  readonly #device: RegionDevice<M>;
  readonly #name: string;

  constructor(device: RegionDevice<M>, name: string) {
    this.#device = device;
    this.#name = name;
    this.regionSize = device.regionSize;
    this.dataSection = device.dataSection;
    this.mapped = device.mapped;
  }

  read(offset: number, into: Uint8Array): void {
    if (offset < DATA_OFFSET) this.#interrupt();
    this.#device.read(offset, into);
  }

  write(offset: number, from: Uint8Array): void {
    if (offset < DATA_OFFSET) this.#interrupt();
    this.#device.write(offset, from);
  }

  reset(): void {
    this.#interrupt();
    this.#device.reset();
  }

  /** The one that served the access before is there: it answered. */
  #interrupt(): void {
    const [pid] = serving('supervisor-main', this.#name);
    if (pid === undefined) throw new Error('no supervisor to be killed');
    killHard(pid);
    while (serving('supervisor-main', this.#name).includes(pid)) pause();
    this.accesses += 1;
    this.killed.push(pid);
  }
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
}
