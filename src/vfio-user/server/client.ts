import type { ErrnoName } from '../../abi/errno.ts';
import type { ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { socketPair, SOCK_STREAM } from '../../sys/socket.ts';
import { Connection } from '../wire/connection.ts';
import { Link, type Asked } from '../wire/link.ts';
import { closeFds, type Message } from '../wire/message.ts';
import type { Version } from '../wire/version.ts';

/** Who hears how a client's commands are answered. */
export interface AnswerObserver {
  answered(body: Uint8Array, fds: number): void;
  refused(errno: ErrnoName): void;
}

/** How many commands of a client, and how many bytes of them, are kept while another is answered. */
const MOST_KEPT = 64;
const MOST_BYTES = 8 * 1024 * 1024;

/**
 * A client, as its server sees it: what it asks, and what it is asked. With a twin socket, the server's commands and their replies have a
 * connection of their own.
 *
 * Nobody waits for a client's replies: while it waits for one of its own, it may answer none. QEMU's iothread takes what comes, but its
 * main loop carries commands out, which stands still until the server has answered (hw/vfio-user/proxy.c: vfio_user_send_wait,
 * vfio_user_request). So commands are answered in the order in which they come (docs/interop/vfio-user.rst: Command Concurrency), whatever
 * the client owes, and replies are told to those who have asked.
 *
 * What a client is asked, and the reply that it gets afterwards, go the same way if there is no twin socket: a client that takes messages as they
 * come has done the one before it sees the other. On a twin socket nothing says which it sees first; but then it must not leave the one
 * unanswered while it waits on the other (Client/server interactions: Socket), so whoever needs that order waits: drain().
 */
export class Client {
  readonly connection: Connection;
  /** Is told how each command is answered, once it is. */
  observer: AnswerObserver | undefined;
  readonly #link: Link;
  #twin: Link | undefined;
  readonly #kept: Message[] = [];
  #keptBytes = 0;
  /** What the client has said; `undefined` until it has. */
  version: Version | undefined;

  constructor(connection: Connection) {
    this.connection = connection;
    this.#link = new Link(connection, (message) => this.#keep(message));
  }

  /** The next command, once all replies that came before it were told. Throws if the client has gone, or sends something else. */
  next(): Message | undefined {
    const kept = this.#kept.shift();
    if (kept !== undefined) {
      this.#keptBytes -= kept.body.length;
      return kept;
    }
    for (;;) {
      const message = this.connection.receive();
      if (message?.isReply !== true) return message;
      this.#link.take(message);
    }
  }

  #keep(message: Message): void {
    this.#kept.push(message);
    this.#keptBytes += message.body.length;
    if (this.#kept.length > MOST_KEPT || this.#keptBytes > MOST_BYTES) {
      throw this.connection.violated('sends more commands than are kept while one is answered');
    }
  }

  /** True if a command is there that came while another was answered. */
  get hasKept(): boolean {
    return this.#kept.length > 0;
  }

  /** Has the server's commands go over a connection of their own, and returns its other end, which is for the client. */
  openTwin(): OwnedFd {
    const [ours, theirs] = socketPair(SOCK_STREAM);
    const { timeout, stop } = this.connection;
    const connection = new Connection(ours, { peer: 'the client, on its twin socket,', timeout, stop });
    this.#twin = new Link(connection, (message) => {
      closeFds(message);
      throw connection.violated('asks something');
    });
    return theirs;
  }

  get hasTwin(): boolean {
    return this.#twin !== undefined;
  }

  get #links(): readonly Link[] {
    return this.#twin === undefined ? [this.#link] : [this.#link, this.#twin];
  }

  /** Where something may come: on the twin socket only what the client owes. */
  get connections(): readonly Connection[] {
    return this.#links.filter((link) => link === this.#link || link.isOwed).map(({ connection }) => connection);
  }

  /** When the client must have answered, or completed a message that it has begun, by `performance.now()`. */
  get deadline(): number {
    return Math.min(...this.#links.map(({ deadline }) => deadline));
  }

  /** Has the client carry out a command: `VFIO_USER_DMA_READ`, `VFIO_USER_DMA_WRITE`. `onReply` is told once it has answered. */
  ask(asked: Asked, onReply: (reply: Message) => void): void {
    (this.#twin ?? this.#link).send(asked, onReply);
  }

  /** Tells of replies that have come on the twin socket. */
  attendTwin(): void {
    this.#twin?.attend();
  }

  /** While a command is answered: tells of replies that have come, keeps commands, and says whether anything has come. */
  attend(): boolean {
    return this.#links.reduce((hasCome, link) => link.attend() || hasCome, false);
  }

  /** Waits until what was asked on the twin socket is answered. Without one there is nothing to wait for. */
  drain(): void {
    this.#twin?.drain();
  }

  /** The client has waited so many milliseconds for an answer: it may have been unable to give one. */
  excuse(milliseconds: number): void {
    for (const link of this.#links) link.excuse(milliseconds);
  }

  /** Throws `ETIMEDOUT` if the client owes a reply for too long. */
  checkOwed(): void {
    for (const link of this.#links) link.checkOwed();
  }

  /** `data`: the end of the body, if that lies elsewhere. */
  reply(message: Message, body: Uint8Array, fds: readonly number[] = [], data?: Uint8Array): void {
    this.#link.reply(message, body, fds, data);
    this.observer?.answered(data === undefined ? body : Buffer.concat([body, data]), fds.length);
  }

  refuse(message: Message, errno: ErrnoName): void {
    this.#link.refuse(message, errno);
    this.observer?.refused(errno);
  }

  /** Why either connection is at its end, if one is. */
  get broken(): ShimError | undefined {
    return this.connection.broken ?? this.#twin?.connection.broken;
  }

  /** True if either connection is at its end. */
  get isLost(): boolean {
    return this.broken !== undefined;
  }

  close(): void {
    for (const message of this.#kept.splice(0)) closeFds(message);
    this.#twin?.connection.close();
    this.connection.close();
  }
}
