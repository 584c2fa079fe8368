import { iovec } from '../abi/ptrace.ts';
import { POLLIN, RWF_NOWAIT } from '../abi/fcntl.ts';
import { isEventFd, type OwnedFd } from './fd.ts';
import { failedWith, trySyscall, withAddress } from './libc.ts';
import { Outlet } from './outlet.ts';
import { PollSet } from './poll.ts';

/** What an eventfd counts by one. */
const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);

/** Somebody else's counter of events (eventfd(2)), which may block or be full: nothing here waits. */
export class EventFd {
  readonly #fd: OwnedFd;
  readonly #outlet: Outlet;

  private constructor(fd: OwnedFd) {
    this.#fd = fd;
    this.#outlet = new Outlet(fd.number);
  }

  /** Takes the descriptor over; `undefined` if it is none of an eventfd, and closed then. */
  static of(fd: OwnedFd): EventFd | undefined {
    if (isEventFd(fd.number)) return new EventFd(fd);
    fd.close();
    return undefined;
  }

  get number(): number {
    return this.#fd.number;
  }

  /** Counts one more, unless the counter is full: then it says already that something has happened. */
  signal(): void {
    this.#outlet.write(ONE);
  }

  /** Sets the counter to 0. True if it was not. */
  take(): boolean {
    const count = new BigUint64Array(1);
    return withAddress(count, (at) => {
      const vector = iovec.encode({ iov_base: BigInt(at), iov_len: 8n });
      const taken = withAddress(vector, (from) => trySyscall('preadv2', this.number, from, 1, -1, -1, RWF_NOWAIT));
      if (!failedWith(taken, 'EOPNOTSUPP')) return taken === 8;
      return this.#isReadable() && trySyscall('read', this.number, at, 8) === 8; // before Linux 5.8
    });
  }

  #isReadable(): boolean {
    const poll = new PollSet(1);
    poll.set(0, this.number, POLLIN);
    return poll.wait(1, 0) && (poll.events(0) & POLLIN) !== 0;
  }

  close(): void {
    this.#fd.close();
  }
}
