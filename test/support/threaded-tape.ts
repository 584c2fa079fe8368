import { isNotReady, ShimError } from '../../src/error.ts';
import type { Access, Accessed, Accessor } from '../../src/kernel/access-thread.ts';
import { ThreadedPort } from '../../src/kernel/threaded-port.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { Caller } from '../../src/vfio/caller.ts';
import { PortV1Device } from '../../src/vfio/client/port-v1-device.ts';
import { BytePort } from './byte-port.ts';
import { TapeV1 } from './tape-v1.ts';

/** A v1 driver of the kernel that takes its time, behind a port that has a thread wait for it once that was measured. */
export class ThreadedTape extends TapeV1 {
  readonly tape: TapeV1;
  /** Accesses that were under way. */
  waited = 0;
  readonly #repeats: number;
  #caller: Caller;
  #calls = 0n;
  /** Ends what is under way, as the driver does whatever becomes of the process that asked. */
  #finish = (): void => {};

  constructor(tape: TapeV1, repeats: number) {
    super();
    this.tape = tape;
    this.#repeats = repeats;
  }

  /** Another call is served. */
  nextCall(): void {
    this.#calls += 1n;
    this.#caller = this.#calls;
  }

  /** Nobody has called. */
  goAhead(): void {
    this.#caller = 'ahead';
  }

  /** Repeats it while it is to wait. */
  untilDone<T>(act: () => T): T {
    for (let tries = 0; ; tries += 1) {
      try {
        return act();
      } catch (error) {
        if (!isNotReady(error) || tries > 100) throw error;
      }
    }
  }

  /** As a process finds the driver that begins now. */
  override get device(): V1Device {
    this.#finish();
    const { device } = this.tape;
    const port = new BytePort();
    port.read = (_, at, into) => {
      device.read(at, into);
      return into.length;
    };
    port.write = (_, at, from) => {
      device.write(at, from);
      return from.length;
    };
    port.reset = () => device.reset();
    let now = 0;
    const handle = { number: -1 };
    const threaded = new ThreadedPort(port, handle, {
      caller: () => this.#caller,
      hasOthers: () => true,
      makeAccessor: () => this.#accessor(device),
      clock: () => (now += 1000), // by which whatever is measured takes long
    });
    const { regionSize: size, dataSection } = device;
    return new PortV1Device(
      threaded,
      { index: 9, flags: 0, size, offset: 0n, type: undefined, sparse: [dataSection] },
      false,
    );
  }

  #accessor(device: V1Device): Accessor {
    let underWay: Access | undefined;
    let left = 0;
    let ended: Accessed | undefined;
    const carryOut = (): void => {
      const access = underWay;
      if (access === undefined) return;
      underWay = undefined;
      const bytes = access.bytes.slice();
      let result = bytes.length;
      try {
        device[access.call](access.position, bytes);
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        result = -error.errnoNumber;
      }
      ended = { result, bytes, took: 1000 };
    };
    this.#finish = carryOut;
    return {
      readiness: { fd: -1, events: 0 },
      begin: (_, access) => {
        if (underWay !== undefined || ended !== undefined) throw new Error('one after the other');
        underWay = access;
        left = this.#repeats;
        this.waited += 1;
      },
      end: () => {
        left -= 1;
        if (left <= 0) carryOut();
        const result = ended;
        ended = undefined;
        return result;
      },
    };
  }
}
