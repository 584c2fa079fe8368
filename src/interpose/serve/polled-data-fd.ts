import { POLLIN, POLLOUT } from '../../abi/fcntl.ts';
import { createEpoll, Timer, unwatch, watch } from '../../sys/epoll.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import type { FdStore } from '../../sys/socket.ts';
import { newPolledNumber } from '../trap/polled-file.ts';

/**
 * What poll(2), select(2) and epoll(7) of the target say of a data fd whose driver has a poll. They are never trapped, so its stand-in is an
 * epoll file. It watches a timer, so it becomes ready by itself when the device said that it would.
 *
 * The timer is this process's. Without it, until a successor has come, nothing is ready, and a read would wait just so. The store keeps
 * the epoll file for the successor; it is also watched itself, with the session's number, which so lasts as long as the run does. A
 * stand-in whose session has ended is ready for good: the store can always be written to. And as it always watches something, nobody can
 * put more epoll files above it than there may be above what a successor adds (fs/eventpoll.c: path_limits).
 */
export class PolledDataFd {
  readonly #store: FdStore;
  #timer: Timer | undefined;
  /** What is shown; `undefined` if no session goes on. */
  #shown: number | undefined;

  constructor(store: FdStore) {
    this.#store = store;
  }

  /** The stand-in of a session that has just begun, which is not ready, and its number. */
  begin(): { readonly file: OwnedFd; readonly number: number } {
    this.#end();
    const file = createEpoll();
    const number = newPolledNumber();
    try {
      watch(file.number, this.#store.end, 0, BigInt(number));
      this.#store.put(number, file);
      this.#watchTimer(file);
    } catch (error) {
      file.close();
      throw error;
    }
    return { file, number };
  }

  /** Of a session that another process has begun. */
  adopt(): void {
    using file = this.#store.peek()?.fd;
    if (file !== undefined) this.#watchTimer(file);
  }

  /** Whether there is a session whose readiness is shown. */
  get goesOn(): boolean {
    return this.#shown !== undefined;
  }

  /** Shows from when on the data fd is readable (V2DataSession.readableFrom); `undefined` if its session has ended. */
  show(from: number | undefined): void {
    if (this.#shown === from) return;
    if (from === undefined) {
      this.#end();
      return;
    }
    this.#timer?.set(from);
    this.#shown = from;
  }

  /** Nothing is ready until that is shown. */
  #watchTimer(file: OwnedFd): void {
    this.#timer ??= new Timer();
    this.#timer.set(Infinity);
    watch(file.number, this.#timer.fd.number, POLLIN);
    this.#shown = Infinity;
  }

  #end(): void {
    this.#shown = undefined;
    const kept = this.#store.peek();
    if (kept === undefined) return;
    using file = kept.fd;
    watch(file.number, this.#store.end, POLLOUT, BigInt(kept.number));
    if (this.#timer !== undefined) unwatch(file.number, this.#timer.fd.number);
    this.#store.clear();
  }
}
