import type { ErrnoName } from '../../abi/errno.ts';
import { ShimError } from '../../error.ts';
import type { Connection } from './connection.ts';
import { closeFds, type Header, type Message, type Place } from './message.ts';

/** What else comes over a connection while somebody waits for a reply: commands of the peer, of which each is answered or kept. */
export type OnCommand = (message: Message) => void;

export interface Asked {
  readonly command: number;
  /** For messages: `VFIO_USER_REGION_READ`. */
  readonly name: string;
  readonly body: Uint8Array;
  readonly fds?: readonly number[];
  /** Where the reply belongs if it fits there and tells no failure: nobody else uses that memory until it has come. */
  readonly place?: Place | undefined;
}

/** A request that was made, and whose reply is to be taken later. */
interface Begun {
  readonly id: number;
  readonly name: string;
  reply: Message | undefined;
  isWanted: boolean;
}

const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * Asks the peer of a connection, with ids of its own: the peer's commands have theirs. One command is open at a time, as servers take no
 * more, and whatever the peer asks meanwhile comes first: it may be what the reply waits for.
 */
export class Link {
  readonly connection: Connection;
  /** Where the peer's commands come as well while it is asked something. */
  beside: Link | undefined;
  readonly #onCommand: OnCommand;
  #id = 0;
  /** What was asked and is not answered yet. Of some nobody waits for the reply any more. */
  readonly #owed = new Set<number>();
  #begun: Begun | undefined;
  /** The last request with a place for its reply. */
  #placed: { readonly id: number; readonly place: Place } | undefined;

  constructor(connection: Connection, onCommand: OnCommand) {
    this.connection = connection;
    connection.placeOf = (header) => this.#placeOf(header);
    this.#onCommand = onCommand;
  }

  /** Makes a request and waits for its reply, which may be an error. */
  ask(asked: Asked): Message {
    this.#settle();
    return this.#await(this.#sendOwed(asked), asked.name);
  }

  /** Makes a request whose reply is taken later: it may be made meanwhile. Whatever is asked before that waits for it. */
  begin(asked: Asked): void {
    this.#settle();
    this.#begun = { id: this.#sendOwed(asked), name: asked.name, reply: undefined, isWanted: true };
  }

  /** Waits for the reply to what was begun. */
  finish(): Message {
    this.#settle();
    const reply = this.#begun?.reply;
    if (reply === undefined) throw new TypeError('nothing was begun');
    this.#begun = undefined;
    return reply;
  }

  /** Nobody wants the reply to what was begun any more. */
  abandon(): void {
    if (this.#begun === undefined) return;
    this.#begun.isWanted = false;
    this.#placed = undefined;
  }

  /** No command but one is open at a time: what was begun is answered first. */
  #settle(): void {
    const begun = this.#begun;
    if (begun === undefined) return;
    begun.reply ??= this.#await(begun.id, begun.name);
    if (begun.isWanted) return;
    closeFds(begun.reply);
    this.#begun = undefined;
  }

  #sendOwed(asked: Asked): number {
    const id = this.#send(asked, false);
    this.#owed.add(id);
    this.#placed = asked.place && { id, place: asked.place };
    return id;
  }

  #placeOf({ id, isReply, errno }: Header): Place | undefined {
    const isFor = isReply && errno === undefined && id === this.#placed?.id && this.#owed.has(id);
    return isFor ? this.#placed?.place : undefined;
  }

  #await(id: number, name: string): Message {
    const { connection, beside } = this;
    let since = performance.now();
    for (;;) {
      const message = connection.receive();
      if (message === undefined) {
        connection.waitToReceive(since + connection.timeout, `has not answered ${name}`, beside?.connection);
        if (beside?.attend() === true) since = performance.now();
      } else if (!message.isReply) {
        this.#onCommand(message);
        since = performance.now();
      } else if (this.#isOwed(message) && message.id === id) return message;
      else closeFds(message);
    }
  }

  /** Makes a request that is not answered. */
  post(asked: Asked): void {
    this.#settle();
    this.#send(asked, true);
  }

  #send({ command, body, fds = [] }: Asked, noReply: boolean): number {
    const id = this.#id;
    this.#id = (id + 1) % 0x1_0000;
    this.connection.send({ id, command, isReply: false, noReply, errno: undefined }, body, fds);
    return id;
  }

  /** True for a reply that the peer owes, whether or not anybody waits for it any more. */
  #isOwed(reply: Message): boolean {
    if (this.#owed.delete(reply.id)) return true;
    closeFds(reply);
    throw this.connection.violated(`answers id ${reply.id}, which nobody has asked`);
  }

  /** Deals with what has come, the peer's commands, and says whether anything has. */
  attend(): boolean {
    let hasCome = false;
    for (let message = this.connection.receive(true); message !== undefined; message = this.connection.receive(true)) {
      hasCome = true;
      if (!message.isReply) this.#onCommand(message);
      else if (this.#isOwed(message)) this.#keep(message);
    }
    return hasCome;
  }

  #keep(reply: Message): void {
    if (reply.id === this.#begun?.id) this.#begun.reply = reply;
    else closeFds(reply);
  }

  /** As ask(), for a reply without descriptors. Throws `ERR_SYSCALL` with the errno that the peer has answered. */
  request(asked: Asked): Uint8Array {
    return answerTo(this.ask(asked), asked.name, this.connection.peer);
  }

  /** Answers a command of the peer's, unless it wants no answer. `data`: as Connection.send() has it. */
  reply({ id, command, noReply }: Message, body: Uint8Array, fds: readonly number[] = [], data = NOTHING): void {
    if (noReply) return;
    this.connection.send({ id, command, isReply: true, noReply: false, errno: undefined }, body, fds, data);
  }

  refuse({ id, command, noReply }: Message, errno: ErrnoName): void {
    if (noReply) return;
    this.connection.send({ id, command, isReply: true, noReply: false, errno }, NOTHING);
  }
}

/** The body of a reply that has no descriptors. Throws as checked() does. */
export function answerTo(reply: Message, name: string, peer: string): Uint8Array {
  closeFds(reply);
  return checked(reply, name, peer).body;
}

/** The reply, if it is none of failure. Throws `ERR_SYSCALL` otherwise. */
export function checked(reply: Message, name: string, peer: string): Message {
  if (reply.errno === undefined) return reply;
  throw new ShimError('ERR_SYSCALL', `vfio-user: ${peer} answers ${name} with ${reply.errno}`, {
    errno: reply.errno,
    syscall: name,
  });
}
