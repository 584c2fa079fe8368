import { createServer, type Server, type Socket } from 'node:net';
import { duplicateOwn } from '../../sys/fd.ts';

/** So many clients are answered in a row; others wait for so many milliseconds, in which the keeper does what else it has to do. */
const BURST = 16;
const PAUSE = 20;
/** So many may have an answer that they have not taken, and for so many milliseconds. Others are sent away. */
const MOST = 16;
const PATIENCE = 2000;

/**
 * Answers whoever connects to a socket: with one text, and then the connection is closed. Nothing is read of anybody. It waits for
 * an event, and costs nothing if nobody asks.
 */
export class StatusServer {
  readonly #listener: number;
  readonly #answer: () => string;
  readonly #clients = new Set<Socket>();
  #server: Server | undefined;
  #answered = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `listener` is a socket that listens, and stays the caller's. */
  constructor(listener: number, answer: () => string) {
    this.#listener = listener;
    this.#answer = answer;
    this.#listen();
  }

  /** Each time with a descriptor of its own: who stops listening closes it, and the socket goes on. */
  #listen(): void {
    const server = createServer({ pauseOnConnect: true }, (client) => this.#serve(client));
    server.on('error', () => this.#pause()); // no descriptor is left, which passes
    server.listen({ fd: duplicateOwn(this.#listener).number, backlog: BURST });
    this.#server = server;
  }

  #pause(): void {
    this.#server?.close();
    this.#server = undefined;
    this.#answered = 0;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#listen();
    }, PAUSE);
  }

  #serve(client: Socket): void {
    this.#answered += 1;
    if (this.#answered >= BURST) this.#pause();
    if (this.#clients.size >= MOST) {
      client.destroy();
      return;
    }
    this.#clients.add(client);
    const patience = setTimeout(() => client.destroy(), PATIENCE);
    client.on('error', () => {}); // it is gone
    client.on('close', () => {
      clearTimeout(patience);
      this.#clients.delete(client);
    });
    client.end(this.#answer(), () => client.destroy());
  }
}
