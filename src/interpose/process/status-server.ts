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
  readonly #answer: () => string | undefined;
  readonly #clients = new Set<Socket>();
  #server: Server | undefined;
  #answered = 0;
  #isPausing = false;

  /** `listener` is a socket that listens, and stays the caller's. Who connects is sent away if there is no answer. */
  constructor(listener: number, answer: () => string | undefined) {
    this.#listener = listener;
    this.#answer = answer;
  }

  /** Listens each time with a descriptor of its own: who stops listening closes that, and the socket goes on. */
  listen(): void {
    const own = this.#duplicate();
    if (own === undefined) {
      this.#pause();
      return;
    }
    const server = createServer({ pauseOnConnect: true }, (client) => this.#serve(client));
    server.on('error', () => this.#pause());
    server.listen({ fd: own });
    this.#server = server;
  }

  /** `undefined` if no descriptor is left, which passes. */
  #duplicate(): number | undefined {
    try {
      return duplicateOwn(this.#listener).number;
    } catch {
      return undefined;
    }
  }

  #pause(): void {
    this.#server?.close();
    this.#server = undefined;
    this.#answered = 0;
    if (this.#isPausing) return;
    this.#isPausing = true;
    setTimeout(() => {
      this.#isPausing = false;
      this.listen();
    }, PAUSE);
  }

  #serve(client: Socket): void {
    this.#answered += 1;
    if (this.#answered >= BURST) this.#pause();
    client.on('error', () => {}); // it is gone
    const answer = this.#clients.size < MOST ? this.#answer() : undefined;
    if (answer === undefined) {
      client.destroy();
      return;
    }
    this.#clients.add(client);
    const patience = setTimeout(() => client.destroy(), PATIENCE);
    client.on('close', () => {
      clearTimeout(patience);
      this.#clients.delete(client);
    });
    client.end(answer, () => client.destroy());
  }
}
