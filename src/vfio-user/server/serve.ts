import { POLLIN } from '../../abi/fcntl.ts';
import { VFIO_USER_VERSION } from '../../abi/vfio-user.ts';
import { errnoNameOf, ShimError } from '../../error.ts';
import { AwakeWait } from '../../sys/awake.ts';
import { makeRoomToSend } from '../../sys/message-socket.ts';
import { PollSet } from '../../sys/poll.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { Connection, MAX_BODY, type Stop } from '../wire/connection.ts';
import { closeFds, HEADER_SIZE, type Message } from '../wire/message.ts';
import { decodeVersion, encodeVersion, MAJOR, MINOR, type Version } from '../wire/version.ts';
import { Client } from './client.ts';
import type { SocketFile } from '../../sys/socket-file.ts';

/** What is served to one client after the other. */
export interface Service {
  /** A client has said what it is. Returns what it is told: the capabilities, without the twin socket. Throws if it is refused. */
  connect(client: Client, version: Version): Readonly<Record<string, unknown>>;
  /** Answers a command, by the client's reply(); what is thrown is told in its place. */
  answer(client: Client, message: Message): void;
  /** Does what is due of itself, and returns when to ask again, by `performance.now()`. */
  work(now: number): number;
  /** Readable once there is work to be done at once; -1 if nothing is to be waited for so. */
  readonly wakeFd?: number;
  /** Something has come on a connection of the service's own. */
  readonly others?: readonly Connection[];
  attend?(client: Client): void;
  /** The client moves data of a migration, one piece after the other: what it asks next is likely to come at once. */
  readonly isMoving?: boolean;
  /** There is nobody any more on whose behalf the client is answered. */
  readonly isLost?: boolean;
  /** The client has gone, whatever it was about. */
  disconnect(): void;
}

export interface ServeOptions {
  /** How long a client may take for what it has begun or owes, in milliseconds. */
  readonly timeout: number;
  readonly stop: Stop;
  readonly log: (message: string) => void;
}

/** Serves clients, one at a time as all servers of this protocol, until this process is to end. */
export function serve(file: SocketFile, service: Service, options: ServeOptions): void {
  const serving = new Serving(file, service, options);
  try {
    while (!serving.isOver) serving.turn();
  } finally {
    options.stop.heeded = false;
    serving.drop('this server ends');
  }
}

/** Places of the poll set. */
const STOP = 0;
const MAIN = 1;
const WAKE = 2;
const TWIN = 3;
const OTHERS = 4;
const MOST_OTHERS = 4;

class Serving {
  readonly #file: SocketFile;
  readonly #service: Service;
  readonly #options: ServeOptions;
  readonly #poll = new PollSet(OTHERS + MOST_OTHERS);
  readonly #awake = new AwakeWait();
  #client: Client | undefined;
  /** By when the client must have said which version it speaks. */
  #greeting = Number.POSITIVE_INFINITY;
  isOver = false;

  constructor(file: SocketFile, service: Service, options: ServeOptions) {
    this.#file = file;
    this.#service = service;
    this.#options = options;
  }

  turn(): void {
    const next = this.#guarded(() => this.#service.work(performance.now())) ?? Number.POSITIVE_INFINITY;
    if (this.isOver) return;
    const lost = this.#client?.isLost === true ? this.#client : undefined;
    if (lost !== undefined) this.drop(lost.broken?.message ?? 'it is lost'); // it has not answered what the service has asked
    this.#wait(next);
    if (this.#poll.events(STOP) !== 0) this.isOver = true;
    else if (this.#client === undefined) this.#accept();
    else this.#attend(this.#client);
  }

  #wait(next: number): void {
    const { stop } = this.#options;
    const client = this.#client;
    const others = client === undefined ? [] : (this.#service.others ?? []);
    const [main, twin] = client?.connections ?? [];
    this.#poll.set(STOP, stop.fd, POLLIN);
    this.#poll.set(MAIN, main?.fd ?? this.#file.fd, POLLIN);
    this.#poll.set(TWIN, twin?.fd ?? -1, POLLIN);
    this.#poll.set(WAKE, this.#service.wakeFd ?? -1, POLLIN);
    for (const [n, { fd }] of others.entries()) this.#poll.set(OTHERS + n, fd, POLLIN);
    const deadlines = others.map(({ deadline }) => deadline);
    const until = Math.min(next, this.#greeting, client?.deadline ?? Number.POSITIVE_INFINITY, ...deadlines);
    const left = client?.hasKept === true ? 0 : Math.max(0, until - performance.now());
    if (left > 0 && this.#service.isMoving === true && this.#awake.wait(this.#poll, OTHERS + others.length)) return;
    this.#poll.wait(OTHERS + others.length, left === Number.POSITIVE_INFINITY ? undefined : left);
  }

  #accept(): void {
    const fd = this.#poll.events(MAIN) === 0 ? undefined : this.#file.accept();
    if (fd === undefined) return;
    const { timeout, stop, log } = this.#options;
    makeRoomToSend(fd.number, HEADER_SIZE + MAX_BODY);
    this.#client = new Client(new Connection(fd, { peer: 'the client', timeout, stop }));
    this.#greeting = performance.now() + timeout;
    log('a client has connected');
  }

  #attend(client: Client): void {
    this.#guarded(() => {
      if (performance.now() > this.#greeting) throw client.connection.violated('has not said its version in time');
      const isLate = performance.now() > client.deadline;
      if (this.#poll.events(TWIN) !== 0 || isLate) client.attendTwin();
      if (this.#poll.events(MAIN) !== 0 || client.hasKept || isLate) this.#answerWhatIsThere(client);
      client.checkOwed();
      if (this.#hasOthers()) this.#service.attend?.(client);
      if (this.#service.isLost === true) throw client.connection.violated('has lost its server');
      if (client.isLost) throw client.connection.broken ?? client.connection.violated('has lost its twin socket');
    });
  }

  /** Answers what has come, up to a command whose answer the client waits for: what it sends next, the next turn finds. */
  #answerWhatIsThere(client: Client): void {
    for (;;) {
      const message = client.next();
      if (message === undefined) return;
      this.#answer(client, message);
      if (!message.noReply || this.isOver || this.#service.isLost === true) return;
    }
  }

  /** Something has come from elsewhere, or has not in time. */
  #hasOthers(): boolean {
    const now = performance.now();
    const others = this.#service.others ?? [];
    return others.some(({ deadline }, n) => this.#poll.events(OTHERS + n) !== 0 || now > deadline);
  }

  #answer(client: Client, message: Message): void {
    const begun = performance.now();
    try {
      if (client.version === undefined) this.#greet(client, message);
      else this.#service.answer(client, message);
    } catch (error) {
      if (!(error instanceof ShimError) || error.code === 'ERR_INTERRUPTED' || client.isLost) throw error;
      this.#options.log(error.message);
      client.refuse(message, errnoNameOf(error));
      if (client.version === undefined) throw client.connection.violated('speaks another version');
    } finally {
      closeFds(message);
      client.excuse(performance.now() - begun);
    }
  }

  /** VERSION comes first (docs/vfio-user.rst: VFIO_USER_VERSION). */
  #greet(client: Client, message: Message): void {
    if (message.command !== VFIO_USER_VERSION) throw refuse('EINVAL', `command ${message.command} before VERSION`);
    const version = decodeVersion(message.body);
    if (version.major !== MAJOR) throw refuse('EINVAL', `VERSION: ${version.major}.${version.minor}, not ${MAJOR}.x`);
    const capabilities = this.#service.connect(client, version);
    const minor = Math.min(version.minor, MINOR);
    const isTwin = version.twinSocket.supported && version.maxMsgFds > 0;
    if (isTwin) {
      using twin = client.openTwin();
      const body = encodeVersion(minor, { ...capabilities, twin_socket: { supported: true, fd_index: 0 } });
      client.reply(message, body, [twin.number]);
    } else client.reply(message, encodeVersion(minor, capabilities));
    client.version = version;
    this.#greeting = Number.POSITIVE_INFINITY;
  }

  /** What fails here ends the client's connection, and nothing else. */
  #guarded<T>(act: () => T): T | undefined {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      if (error.code === 'ERR_INTERRUPTED') this.isOver = true;
      else this.drop(error.message);
      return undefined;
    }
  }

  drop(why: string): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    this.#greeting = Number.POSITIVE_INFINITY;
    const { stop, log } = this.#options;
    log(`the client's connection ends: ${why}`);
    const { heeded } = stop;
    stop.heeded = false; // a device is let go even if this process is to end
    try {
      this.#service.disconnect();
    } finally {
      stop.heeded = heeded;
      client.close();
    }
  }
}
