import type { ErrnoName } from '../../abi/errno.ts';
import { ShimError } from '../../error.ts';
import type { Connection, Arrival } from './connection.ts';
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

/** Connections on which something comes that is dealt with while a reply is waited for, which may depend on it. */
export interface Beside {
  readonly connections: readonly Connection[];
  /** Deals with what has come, and says whether anything has. */
  attend(): boolean;
}

/** A request that has no reply yet. */
interface Owed {
  readonly name: string;
  /** When the reply is late. */
  end: number;
  readonly onReply: (reply: Message) => void;
}

/** A request that was made, and whose reply is to be taken later. */
interface Begun {
  readonly name: string;
  reply: Message | undefined;
  isWanted: boolean;
}

const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * Asks the peer of a connection, with ids of its own: the peer's commands have theirs. Who waits for replies has one command open at a
 * time, as servers take no more, and whatever the peer asks meanwhile comes first: it may be what the reply waits for. Who does not wait is
 * told of a reply when it comes, in whatever order. An id is used again once its reply has come.
 */
export class Link implements Beside {
  readonly connection: Connection;
  /** Who is attended to as well while this side waits for a reply. */
  beside: () => readonly Beside[] = () => [];
  readonly #onCommand: OnCommand;
  #id = 0;
  readonly #owed = new Map<number, Owed>();
  #begun: Begun | undefined;
  /** The last request with a place for its reply. */
  #placed: { readonly id: number; readonly place: Place } | undefined;

  constructor(connection: Connection, onCommand: OnCommand) {
    this.connection = connection;
    connection.placeOf = (header) => this.#placeOf(header);
    this.#onCommand = onCommand;
  }

  get connections(): readonly Connection[] {
    return [this.connection];
  }

  /** When the peer must have answered, or completed a message that it has begun. */
  get deadline(): number {
    let end = this.connection.deadline;
    for (const owed of this.#owed.values()) end = Math.min(end, owed.end);
    return end;
  }

  /** True if the peer owes a reply, whether or not anybody wants it. */
  get isOwed(): boolean {
    return this.#owed.size > 0;
  }

  /** Makes a request and waits for its reply, which may be an error. */
  ask(asked: Asked): Message {
    this.#settle();
    let reply: Message | undefined;
    let isWanted = true;
    this.send(asked, (message) => (isWanted ? (reply = message) : closeFds(message)));
    try {
      return this.#await(asked.name, () => reply);
    } finally {
      isWanted = false;
    }
  }

  /** Makes a request; `onReply` is told once its reply has come, which may be an error, and closes its descriptors. */
  send(asked: Asked, onReply: (reply: Message) => void): void {
    const id = this.#send(asked, false);
    this.#owed.set(id, { name: asked.name, end: performance.now() + this.connection.timeout, onReply });
    this.#placed = asked.place && { id, place: asked.place };
  }

  /** Makes a request whose reply is taken later: it may be made meanwhile. Whatever is asked before that waits for it. */
  begin(asked: Asked): void {
    this.#settle();
    const begun: Begun = { name: asked.name, reply: undefined, isWanted: true };
    this.send(asked, (reply) => (begun.reply = reply));
    this.#begun = begun;
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
    const reply = this.#await(begun.name, () => begun.reply);
    if (begun.isWanted) return;
    closeFds(reply);
    this.#begun = undefined;
  }

  #placeOf({ id, isReply, errno }: Header): Place | undefined {
    const isFor = isReply && errno === undefined && id === this.#placed?.id && this.#owed.has(id);
    return isFor ? this.#placed?.place : undefined;
  }

  /** Waits until the peer owes nothing. */
  drain(): void {
    const [first] = this.#owed.values();
    if (first !== undefined) this.#await(first.name, () => (this.isOwed ? undefined : true));
  }

  /**
   * What the peer has sent beside before it has answered comes first: who waits for the answer gets both in this order. So what is beside is
   * looked at after the answer has come, be it before all of it is received. What was asked just now is not answered yet: nothing is received before
   * there is something.
   */
  #await<T>(name: string, result: () => T | undefined): T {
    const { connection } = this;
    let since = performance.now();
    let isInOrder = false;
    let mayBeHere = false;
    for (let found = result(); ; found = result()) {
      if (found !== undefined) return found;
      const message = mayBeHere ? connection.receive() : undefined;
      mayBeHere = true;
      if (message === undefined) {
        const { isHere, isThere } = this.#waitOnce(since, name);
        if (isThere && this.#attendBeside()) since = performance.now();
        isInOrder = isHere;
        continue;
      }
      if (message.isReply) this.#takeReply(message, isInOrder);
      else {
        this.#onCommand(message);
        since = performance.now();
      }
      isInOrder = false;
    }
  }

  #waitOnce(since: number, name: string): Arrival {
    const { connection } = this;
    const others = this.beside().flatMap(({ connections }) => connections);
    return connection.waitToReceive(since + connection.timeout, `has not answered ${name}`, others);
  }

  #attendBeside(): boolean {
    return this.beside().reduce((hasCome, each) => each.attend() || hasCome, false);
  }

  #takeReply(reply: Message, isInOrder: boolean): void {
    try {
      if (!isInOrder) this.#attendBeside();
    } catch (error) {
      closeFds(reply);
      throw error;
    }
    this.take(reply);
  }

  /** Makes a request that is not answered. */
  post(asked: Asked): void {
    this.#settle();
    this.#send(asked, true);
  }

  #send({ command, body, fds = [] }: Asked, noReply: boolean): number {
    while (this.#owed.has(this.#id)) this.#id = (this.#id + 1) % IDS;
    const id = this.#id;
    this.#id = (id + 1) % IDS;
    this.connection.send({ id, command, isReply: false, noReply, errno: undefined }, body, fds);
    return id;
  }

  /** Hands on a reply that has come. Throws `EPROTO` for one that the peer does not owe. */
  take(reply: Message): void {
    const owed = this.#owed.get(reply.id);
    if (owed === undefined) {
      closeFds(reply);
      throw this.connection.violated(`answers id ${reply.id}, which nobody has asked`);
    }
    this.#owed.delete(reply.id);
    owed.onReply(reply);
  }

  /** The peer could not answer for so many milliseconds. */
  excuse(milliseconds: number): void {
    for (const owed of this.#owed.values()) owed.end += milliseconds;
  }

  /** Throws `ETIMEDOUT` if a reply is late. */
  checkOwed(): void {
    const now = performance.now();
    for (const { name, end } of this.#owed.values()) {
      if (now > end) throw this.connection.timedOut(`has not answered ${name}`);
    }
  }

  attend(): boolean {
    let hasCome = false;
    for (let message = this.connection.receive(true); message !== undefined; message = this.connection.receive(true)) {
      hasCome = true;
      if (message.isReply) this.take(message);
      else this.#onCommand(message);
    }
    return hasCome;
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

const IDS = 0x1_0000;

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
