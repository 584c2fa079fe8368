import type { Socket } from 'node:net';
import { ShimError } from '../error.ts';
import { onClose } from './connect.ts';
import { within } from './deadline.ts';
import { readLines } from './lines.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** QEMU's answer `{"error": {"class", "desc"}}` (docs/interop/qmp-spec.txt). */
export class QmpError extends ShimError {
  constructor(command: string, { class: errorClass, desc }: { readonly class: string; readonly desc: string }) {
    super('ERR_TARGET', `QMP ${command}: ${desc} (${errorClass})`);
  }
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Message {
  readonly QMP?: unknown;
  readonly event?: string;
  readonly data?: Record<string, unknown>;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

/** A QMP connection with its capabilities negotiated. Keeps every event, so that none is missed by who asks late. */
export class QmpClient {
  /** Every event since the connection was made, in order. */
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #lastWords: () => string;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<() => void>();
  #greeted = false;
  #ended: string | undefined;
  #nextId = 1;

  private constructor(socket: Socket, lastWords: () => string) {
    this.#socket = socket;
    this.#lastWords = lastWords;
    readLines(socket, (line) => this.#receive(JSON.parse(line) as Message));
    onClose(socket, (reason) => this.#end(reason));
  }

  /**
   * Waits for QEMU's greeting, which comes when the machine is built, and leaves capabilities negotiation mode. `lastWords`: what
   * QEMU itself has to say if the connection fails.
   */
  static async open(socket: Socket, ms: number, lastWords: () => string): Promise<QmpClient> {
    const client = new QmpClient(socket, lastWords);
    await client.#when(
      () => client.#greeted || undefined,
      ms,
      () => 'QMP greeting',
    );
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Why there is no connection any more; `undefined` while there is one. */
  get ended(): string | undefined {
    return this.#ended;
  }

  async execute<T = unknown>(command: string, args: Readonly<Record<string, unknown>> = {}, ms = 15_000): Promise<T> {
    if (this.#ended !== undefined) throw this.#closed(`QMP ${command}`);
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { command, resolve, reject }));
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return (await within(answer, ms, () => `QMP ${command}${this.#lastWords()}`)) as T;
    } finally {
      this.#pending.delete(id);
    }
  }

  /** A command of the human monitor; returns what it prints. */
  hmp(line: string): Promise<string> {
    return this.execute<string>('human-monitor-command', { 'command-line': line });
  }

  /** The first event of this name, and with such data, that is or will be among `events`. */
  waitForEvent(
    name: string,
    { ms = 15_000, where = () => true }: { ms?: number; where?: (data: QmpEvent['data']) => boolean } = {},
  ): Promise<QmpEvent> {
    const look = (): QmpEvent | undefined => this.events.find(({ event, data }) => event === name && where(data));
    return this.#when(look, ms, () => `QMP event ${name}; saw ${this.events.map(({ event }) => event).join()}`);
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Looks after each message, until there is something to be seen. */
  async #when<T>(look: () => T | undefined, ms: number, what: () => string): Promise<T> {
    let listener = (): void => {};
    const seen = new Promise<T>((resolve, reject) => {
      listener = () => {
        const found = look();
        if (found !== undefined) resolve(found);
        else if (this.#ended !== undefined) reject(this.#closed(what()));
      };
    });
    this.#listeners.add(listener);
    listener();
    try {
      return await within(seen, ms, () => what() + this.#lastWords());
    } finally {
      this.#listeners.delete(listener);
    }
  }

  #receive(message: Message): void {
    if (message.QMP !== undefined) this.#greeted = true;
    else if (message.event !== undefined) this.events.push({ event: message.event, data: message.data ?? {} });
    else this.#answer(message);
    for (const listener of this.#listeners) listener();
  }

  #answer({ id = 0, error, return: value }: Message): void {
    const pending = this.#pending.get(id);
    if (error === undefined) pending?.resolve(value);
    else pending?.reject(new QmpError(pending.command, error));
  }

  #end(reason: string): void {
    this.#ended = reason;
    for (const { command, reject } of this.#pending.values()) reject(this.#closed(`QMP ${command}`));
    for (const listener of this.#listeners) listener();
  }

  #closed(what: string): ShimError {
    return new ShimError('ERR_TARGET', `${what}: ${this.#ended}${this.#lastWords()}`);
  }
}
