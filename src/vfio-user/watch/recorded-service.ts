import { peerProcess } from '../../sys/message-socket.ts';
import type { Client } from '../server/client.ts';
import type { Service } from '../server/serve.ts';
import type { Connection } from '../wire/connection.ts';
import type { Message } from '../wire/message.ts';
import type { Version } from '../wire/version.ts';
import type { LineSink, MessageRecorder, Recorded } from './message-recorder.ts';

/** A service that says what its client is connected to. */
export interface RecordableService extends Service {
  /** What the client sees, while there is one. */
  readonly recorded: Recorded;
}

/** The same service, of which each command is recorded, with how it was answered. */
export class RecordedService implements Service {
  readonly #service: RecordableService;
  readonly #recorder: MessageRecorder;
  readonly #sink: LineSink;

  constructor(service: RecordableService, recorder: MessageRecorder, sink: LineSink) {
    this.#service = service;
    this.#recorder = recorder;
    this.#sink = sink;
  }

  connect(client: Client, version: Version): Readonly<Record<string, unknown>> {
    const capabilities = this.#service.connect(client, version);
    this.#recorder.connected(this.#service.recorded, peerProcess(client.connection.fd));
    client.observer = this.#recorder;
    return capabilities;
  }

  answer(client: Client, message: Message): void {
    this.#recorder.begin(message);
    this.#service.answer(client, message);
    if (message.noReply) this.#recorder.answered(NOTHING, 0);
  }

  work(now: number): number {
    return Math.min(this.#service.work(now), this.#sink.work(now));
  }

  get wakeFd(): number {
    return this.#service.wakeFd ?? -1;
  }

  get others(): readonly Connection[] {
    return this.#service.others ?? [];
  }

  attend(client: Client): void {
    this.#service.attend?.(client);
  }

  get isMoving(): boolean {
    return this.#service.isMoving === true;
  }

  get isLost(): boolean {
    return this.#service.isLost === true;
  }

  disconnect(): void {
    this.#recorder.lost();
    try {
      this.#service.disconnect();
    } finally {
      this.#recorder.disconnected();
    }
  }
}

const NOTHING = new Uint8Array(0);
