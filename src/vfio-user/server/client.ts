import type { ErrnoName } from '../../abi/errno.ts';
import type { ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { socketPair, SOCK_STREAM } from '../../sys/socket.ts';
import { Connection } from '../wire/connection.ts';
import { checked, Link, type Asked } from '../wire/link.ts';
import { closeFds, type Message } from '../wire/message.ts';
import type { Version } from '../wire/version.ts';

/** Who hears how a client's commands are answered. */
export interface AnswerObserver {
  answered(body: Uint8Array, fds: number): void;
  refused(errno: ErrnoName): void;
}

/** How many commands of a client, and how many bytes of them, are kept while the client is asked something. */
const MOST_KEPT = 64;
const MOST_BYTES = 8 * 1024 * 1024;

/**
 * A client, as its server sees it: what it asks, and who answers what the server asks. With a twin socket, the server's commands and their
 * replies have a connection of their own; otherwise the client's commands that come meanwhile wait.
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

  /** The next command. Throws if the client has gone, or sends something else. */
  next(): Message | undefined {
    const kept = this.#kept.shift();
    if (kept !== undefined) {
      this.#keptBytes -= kept.body.length;
      return kept;
    }
    const message = this.connection.receive();
    if (message?.isReply !== true) return message;
    closeFds(message);
    throw this.connection.violated('answers what nobody has asked');
  }

  #keep(message: Message): void {
    this.#kept.push(message);
    this.#keptBytes += message.body.length;
    if (this.#kept.length > MOST_KEPT || this.#keptBytes > MOST_BYTES) {
      throw this.connection.violated('sends more commands than are kept while it is asked something');
    }
  }

  /** True if a command is there that came while the client was asked something. */
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

  /** Has the client carry out a command: `VFIO_USER_DMA_READ`, `VFIO_USER_DMA_WRITE`. */
  ask(asked: Asked): Message {
    return (this.#twin ?? this.#link).ask(asked);
  }

  /** As ask(), and the reply's body. Throws `ERR_SYSCALL` if the client refuses. */
  request(asked: Asked): Uint8Array {
    const reply = this.ask(asked);
    closeFds(reply);
    return checked(reply, asked.name, this.connection.peer).body;
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
