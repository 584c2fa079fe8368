import { Mdev } from './mdev.ts';

/** One serial port, or two (samples/vfio-mdev/mtty.c). */
export type MttyType = 'mtty-1' | 'mtty-2';

/** A device of the kernel's sample driver mtty, which speaks v2. */
export class Mtty extends Mdev {
  readonly ports: 1 | 2;

  private constructor(type: MttyType, uid: number) {
    super('mtty', type, uid);
    this.ports = type === 'mtty-1' ? 1 : 2;
  }

  /**
   * Creates a device, whose group belongs to `uid`. Needs root. Whoever wants to be sure of its state takes a new one: mtty keeps
   * its migration state when it is closed.
   */
  static create(type: MttyType = 'mtty-2', uid = 0): Mtty {
    return new Mtty(type, uid);
  }

  /** How many more devices of a type there may be. */
  static available(type: MttyType): number {
    return Mdev.availableOf('mtty', type);
  }
}
