import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { ShimError } from '../error.ts';
import { poll, within } from './deadline.ts';

interface Waiting {
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/** A line sent, a line received, over a UNIX socket: what QEMU's monitor and its qtest server have in common. */
export class Dialogue {
  readonly #name: string;
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  readonly #unread: string[] = [];
  #ended = false;

  private constructor(name: string, socket: Socket, isAnswer: (line: string) => boolean) {
    this.#name = name;
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      if (!isAnswer(line)) return;
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#unread.push(line);
      else waiting.resolve(line);
    });
    socket.on('error', () => {}); // `close` follows
    socket.on('close', () => {
      this.#ended = true;
      for (const { reject } of this.#waiting.splice(0)) reject(this.#closed());
    });
  }

  /** Connects to a server that was just started. `isAnswer` tells answers from lines that come unasked. */
  static async open(
    path: string,
    options: { readonly name: string; readonly isAnswer?: (line: string) => boolean; readonly gone: () => boolean },
  ): Promise<Dialogue> {
    const { name, gone, isAnswer = () => true } = options;
    const attempt = async (): Promise<Socket | undefined> => {
      if (gone()) throw new ShimError('ERR_TARGET', `${name}: the process has ended`);
      return tryConnect(path);
    };
    return new Dialogue(name, await poll(attempt, 20_000, `${name}: a connection`), isAnswer);
  }

  /** The next answer. */
  async next(what: string): Promise<string> {
    const unread = this.#unread.shift();
    if (unread !== undefined) return unread;
    if (this.#ended) throw this.#closed();
    const answer = new Promise<string>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    return within(answer, 20_000, `${this.#name}: ${what}`);
  }

  ask(line: string): Promise<string> {
    this.#socket.write(`${line}\n`);
    return this.next(line.slice(0, 60));
  }

  close(): void {
    this.#socket.destroy();
  }

  #closed(): ShimError {
    return new ShimError('ERR_TARGET', `${this.#name}: the connection was closed`);
  }
}

/** A connection; `undefined` where nobody listens yet. */
function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const refused = (error: NodeJS.ErrnoException): void =>
      ['ENOENT', 'ECONNREFUSED'].includes(error.code ?? '') ? resolve(undefined) : reject(error);
    socket.once('error', refused);
    socket.once('connect', () => {
      socket.off('error', refused);
      resolve(socket);
    });
  });
}
