import type { Socket } from 'node:net';
import { readLines } from './socket.ts';
import { within } from './wait.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** QEMU's answer `{"error": {"class", "desc"}}` (docs/interop/qmp-spec.txt). */
export class QmpError extends Error {
  override readonly name = 'QmpError';
  readonly command: string;
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`QMP ${command}: ${description} (${errorClass})`);
    this.command = command;
    this.errorClass = errorClass;
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
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<() => void>();
  #greeted!: () => void;
  #ended: string | undefined;
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    readLines(
      socket,
      (line) => this.#receive(JSON.parse(line) as Message),
      (reason) => this.#end(reason),
    );
  }

  /** Waits for QEMU's greeting, which comes when the machine is built, and leaves capabilities negotiation mode. */
  static async open(socket: Socket, ms = 20_000): Promise<QmpClient> {
    const client = new QmpClient(socket);
    const greeting = new Promise<void>((resolve, reject) => {
      client.#greeted = resolve;
      client.#listeners.add(() => client.#ended === undefined || reject(new Error(`QMP: ${client.#ended}`)));
    });
    await within(greeting, ms, 'QMP greeting');
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Why there is no connection any more; `undefined` while there is one. */
  get ended(): string | undefined {
    return this.#ended;
  }

  async execute<T = unknown>(command: string, args: Readonly<Record<string, unknown>> = {}, ms = 15_000): Promise<T> {
    if (this.#ended !== undefined) throw new Error(`QMP ${command}: ${this.#ended}`);
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { command, resolve, reject }));
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return (await within(answer, ms, `QMP ${command}`)) as T;
    } finally {
      this.#pending.delete(id);
    }
  }

  /** A command of the human monitor; returns what it prints. */
  hmp(line: string): Promise<string> {
    return this.execute<string>('human-monitor-command', { 'command-line': line });
  }

  /** The first event of this name that is or will be in `events` from index `from` on. */
  async waitForEvent(name: string, { ms = 15_000, from = 0 } = {}): Promise<QmpEvent> {
    let listener = (): void => {};
    const found = new Promise<QmpEvent>((resolve, reject) => {
      listener = () => {
        const event = this.events.slice(from).find((candidate) => candidate.event === name);
        if (event !== undefined) resolve(event);
        else if (this.#ended !== undefined) reject(new Error(`QMP event ${name}: ${this.#ended}`));
      };
    });
    this.#listeners.add(listener);
    listener();
    try {
      return await within(found, ms, () => `QMP event ${name}; saw ${this.events.map((event) => event.event).join()}`);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(message: Message): void {
    if (message.QMP !== undefined) this.#greeted();
    else if (message.event !== undefined) this.events.push({ event: message.event, data: message.data ?? {} });
    else this.#answer(message);
    for (const listener of this.#listeners) listener();
  }

  #answer(message: Message): void {
    const pending = this.#pending.get(message.id ?? 0);
    if (pending === undefined) return;
    if (message.error === undefined) pending.resolve(message.return);
    else pending.reject(new QmpError(pending.command, message.error.class, message.error.desc));
  }

  #end(reason: string): void {
    this.#ended = reason;
    for (const pending of this.#pending.values()) pending.reject(new Error(`QMP ${pending.command}: ${reason}`));
    for (const listener of this.#listeners) listener();
  }
}
