import { POLLERR, POLLHUP, POLLIN, POLLOUT } from '../../abi/fcntl.ts';
import { errnoNumber } from '../../abi/errno.ts';
import { smallBytes } from '../../abi/small-bytes.ts';
import type { ErrnoName } from '../../abi/errno.ts';
import { hasErrno, ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { failedWith, syscallError } from '../../sys/libc.ts';
import { AwakeWait } from '../../sys/awake.ts';
import { receivePieces, sendPieces, type Received } from '../../sys/message-socket.ts';
import { PollSet } from '../../sys/poll.ts';
import {
  closeFds,
  decodeHeader,
  encodeHeader,
  HEADER_SIZE,
  protocolError,
  type Header,
  type Message,
  type Place,
} from './message.ts';

/** What ends a wait before its time: a descriptor that becomes readable if this process is to end. */
export interface Stop {
  readonly fd: number;
  /** False while what was begun is put in order. */
  heeded: boolean;
}

export interface ConnectionOptions {
  /** Who is at the other end, for messages: "the client", "the server". */
  readonly peer: string;
  /** How long the peer may take for what it has begun or owes, in milliseconds. */
  readonly timeout: number;
  readonly stop?: Stop | undefined;
}

/** Where something may be to be received. */
export interface Arrival {
  readonly isHere: boolean;
  /** On another connection. */
  readonly isThere: boolean;
}

/**
 * The most bytes that a body may have: those of the largest transfer, and as much again as the structs before it take (libvfio-user,
 * lib/private.h: SERVER_MAX_MSG_SIZE). A bitmap of dirty pages is no larger.
 */
export const MAX_BODY = 1024 * 1024 + 4096;
/** The most descriptors that a message may have. */
export const MAX_FDS = 64;
/** How many are asked for: as many as libvfio-user takes (lib/private.h: SERVER_MAX_FDS). QEMU refuses who takes more than 16. */
export const OFFERED_FDS = 8;

/**
 * One end of a socket that carries messages. It reads no further than a message goes, as descriptors come with the bytes that they were
 * sent with. Memory is taken for one message at a time, and none for what a header says before that was checked.
 */
export class Connection {
  readonly peer: string;
  timeout: number;
  readonly stop: Stop | undefined;
  readonly #fd: OwnedFd;
  readonly #poll = new PollSet(OTHERS + MOST_OTHERS);
  readonly #awake = new AwakeWait();
  readonly #head = new Uint8Array(HEADER_SIZE);
  readonly #outHead = new Uint8Array(HEADER_SIZE);
  #header: Header | undefined;
  #body: Uint8Array = NOTHING;
  /** Where the end of the body is received, if that is not `#body`. */
  #data: Uint8Array = NOTHING;
  /** Bytes of the header, or of the body, that have come. */
  #filled = 0;
  #fds: OwnedFd[] = [];
  /** Where the body of a message belongs, if there is a place for it. One that does not fit there is received as any. */
  placeOf: ((header: Header) => Place | undefined) | undefined;
  /** Since when a message has been on its way that is not complete. */
  #since: number | undefined;
  #broken: ShimError | undefined;
  #spare: ArrayBuffer | undefined;

  constructor(fd: OwnedFd, { peer, timeout, stop }: ConnectionOptions) {
    this.#fd = fd;
    this.peer = peer;
    this.timeout = timeout;
    this.stop = stop;
  }

  get fd(): number {
    return this.#fd.number;
  }

  /** When the peer must have completed the message that it has begun, by `performance.now()`; `Infinity` if none is. */
  get deadline(): number {
    return this.#since === undefined ? Number.POSITIVE_INFINITY : this.#since + this.timeout;
  }

  /** Why the connection cannot go on, if it cannot: the peer has gone, does not keep to the protocol, or takes too long. */
  get broken(): ShimError | undefined {
    return this.#broken;
  }

  /**
   * The next message, if it is there; `undefined` if it is not, or not all of it. Throws `ECONNRESET` if the peer has closed, `EPROTO` if
   * what it sends is no message, `ETIMEDOUT` if it has been sending one for too long. `inTurn`: who has others to attend to takes no more of a
   * long message than is there now.
   */
  receive(inTurn = false): Message | undefined {
    for (;;) {
      const { length } = this.#header ?? { length: HEADER_SIZE };
      if (this.#filled === length) {
        if (this.#header !== undefined) return this.#complete(this.#header);
        this.#header = this.#decodeHeader();
        this.#makeRoom(this.#header);
        this.#filled = 0;
        continue;
      }
      const received = this.#receive();
      if (received === undefined) {
        if (performance.now() > this.deadline) throw this.timedOut('has not completed a message');
        return undefined;
      }
      this.#fds.push(...received.fds);
      if (received.length === 0) throw this.#failure('ECONNRESET', 'has closed the connection');
      if (received.isCut) throw this.#break(protocolError('descriptors were lost: this process may not have so many'));
      if (this.#fds.length > MAX_FDS)
        throw this.#break(protocolError(`a message with ${this.#fds.length} descriptors`));
      this.#since ??= performance.now();
      this.#filled += received.length;
      if (inTurn && this.#filled < length) return undefined;
    }
  }

  /** Nobody looks at the body of a message any more that this has received: it may be the next one's. */
  recycle({ buffer }: Uint8Array): void {
    if (buffer instanceof ArrayBuffer && buffer.byteLength >= WORTH_KEEPING) this.#spare = buffer;
  }

  #makeRoom(header: Header): void {
    const { length } = header;
    const { head, data } = this.placeOf?.(header) ?? { head: length, data: NOTHING };
    const rest = length - head;
    const fits = rest > 0 && rest <= data.length;
    this.#body = this.#bodyOf(fits ? head : length);
    this.#data = fits ? data.subarray(0, rest) : NOTHING;
  }

  /** Memory that was used before costs no pages of the kernel's. */
  #bodyOf(length: number): Uint8Array<ArrayBuffer> {
    const spare = this.#spare;
    if (length < WORTH_KEEPING || spare === undefined || spare.byteLength < length) return smallBytes(length);
    this.#spare = undefined;
    return new Uint8Array(spare, 0, length);
  }

  #decodeHeader(): Header {
    try {
      return decodeHeader(this.#head, MAX_BODY);
    } catch (error) {
      throw error instanceof ShimError ? this.#break(error) : error;
    }
  }

  /** What is missing of the header, or of the body. */
  #missing(): Uint8Array[] {
    const filled = this.#filled;
    if (this.#header === undefined) return [this.#head.subarray(filled)];
    const body = this.#body;
    if (this.#data.length === 0) return [body.subarray(filled)];
    return filled < body.length ? [body.subarray(filled), this.#data] : [this.#data.subarray(filled - body.length)];
  }

  #receive(): Received | undefined {
    try {
      return receivePieces(this.fd, this.#missing());
    } catch (error) {
      throw hasErrno(error, 'ECONNRESET') ? this.#failure('ECONNRESET', 'has closed the connection') : error;
    }
  }

  #complete(header: Header): Message {
    const { id, command, isReply, noReply, errno } = header;
    const data = this.#data.length > 0 ? this.#data : undefined;
    const message = { id, command, isReply, noReply, errno, body: this.#body, data, fds: this.#fds };
    this.#header = undefined;
    this.#body = this.#data = NOTHING;
    this.#filled = 0;
    this.#fds = [];
    this.#since = undefined;
    return message;
  }

  /**
   * Sends a message, with descriptors that stay the caller's. `data`: the end of the body, if that lies elsewhere. Waits until the peer has taken
   * it, for as long as it may take.
   */
  send(header: Omit<Header, 'length'>, body: Uint8Array, fds: readonly number[] = [], data = NOTHING): void {
    const head = encodeHeader(header, body.length + data.length, this.#outHead);
    const end = performance.now() + this.timeout;
    let pieces = [head, body, data].filter(({ length }) => length > 0);
    let beside = fds;
    while (pieces.length > 0) {
      const sent = sendPieces(this.fd, pieces, beside);
      if (sent === -EAGAIN || sent === -EINTR) this.#wait(POLLOUT, end, 'does not take a message');
      else if (failedWith(sent, 'EPIPE') || failedWith(sent, 'ECONNRESET')) {
        throw this.#failure('ECONNRESET', 'has closed the connection');
      } else if (sent < 0) throw syscallError(`send to ${this.peer}`, 'sendmsg', -sent);
      else {
        pieces = without(pieces, sent);
        beside = [];
      }
    }
  }

  /**
   * Waits until there may be something to receive, here or on other connections, and says where. What is said of the others is of a later time: none
   * of them had anything when something came here, if it says so. Throws `ETIMEDOUT` at `end` if there is nothing here, and `ERR_INTERRUPTED` if
   * this process is to end.
   */
  waitToReceive(end: number, what: string, others: readonly Connection[] = []): Arrival {
    this.#wait(POLLIN, Math.min(end, this.deadline), what, others);
    // poll(2) looks at descriptors in their order
    return {
      isHere: this.#poll.events(0) !== 0,
      isThere: others.some((_, n) => this.#poll.events(OTHERS + n) !== 0),
    };
  }

  #wait(events: number, end: number, what: string, others: readonly Connection[] = []): void {
    const left = Math.max(0, end - performance.now());
    if (left === 0 && events === POLLOUT) throw this.timedOut(what);
    this.#poll.set(0, this.fd, events);
    this.#poll.set(1, this.stop?.heeded === true ? this.stop.fd : -1, POLLIN);
    for (const [n, { fd }] of others.entries()) this.#poll.set(OTHERS + n, fd, POLLIN);
    const count = OTHERS + others.length;
    const isAwake = events === POLLIN && left > 0 && this.#awake.wait(this.#poll, count);
    if (!isAwake) this.#poll.wait(count, left);
    if (this.#poll.events(1) !== 0) throw interrupted();
    if (left === 0 && this.#poll.events(0) === 0) throw this.timedOut(what); // what was in time is taken, however late this looks
    const dead = POLLERR | POLLHUP;
    if (events === POLLOUT && (this.#poll.events(0) & dead) !== 0) {
      throw this.#failure('ECONNRESET', 'has closed the connection');
    }
  }

  #failure(errno: ErrnoName, what: string): ShimError {
    const seconds = errno === 'ETIMEDOUT' ? ` within ${this.timeout / 1000} s` : '';
    return this.#break(new ShimError('ERR_DEVICE', `vfio-user: ${this.peer} ${what}${seconds}`, { errno }));
  }

  /** The peer has taken too long: the connection is at its end. */
  timedOut(what: string): ShimError {
    return this.#failure('ETIMEDOUT', what);
  }

  /** The peer has done what cannot be answered: the connection is at its end. */
  violated(what: string): ShimError {
    return this.#break(protocolError(`${this.peer} ${what}`));
  }

  #break(error: ShimError): ShimError {
    this.#broken ??= error;
    return error;
  }

  close(): void {
    closeFds({ fds: this.#fds });
    this.#fds = [];
    this.#fd.close();
  }
}

const NOTHING: Uint8Array = new Uint8Array(0);

/** Places of the poll set from here on: connections that are waited for beside. */
const OTHERS = 2;
const MOST_OTHERS = 3;

/** Smaller bodies are made anew. */
const WORTH_KEEPING = 16 * 1024;

const EAGAIN = errnoNumber('EAGAIN');
const EINTR = errnoNumber('EINTR');

/** What is left of pieces once so many bytes have gone. */
function without(pieces: readonly Uint8Array[], sent: number): Uint8Array[] {
  const left: Uint8Array[] = [];
  let gone = sent;
  for (const piece of pieces) {
    if (gone < piece.length) left.push(piece.subarray(gone));
    gone = Math.max(0, gone - piece.length);
  }
  return left;
}

/** This process is to end. */
export function interrupted(): ShimError {
  return new ShimError('ERR_INTERRUPTED', 'vfio-user: interrupted', { errno: 'EINTR' });
}
