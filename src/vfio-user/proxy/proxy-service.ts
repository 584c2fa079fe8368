import { VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE } from '../../abi/vfio-user.ts';
import { ShimError } from '../../error.ts';
import { Server } from '../client/server.ts';
import type { Client } from '../server/client.ts';
import type { Recorded } from '../watch/message-recorder.ts';
import type { RecordableService } from '../watch/recorded-service.ts';
import type { Connection, Stop } from '../wire/connection.ts';
import type { Message } from '../wire/message.ts';
import type { Version } from '../wire/version.ts';
import { ServerRequests } from './server-requests.ts';
import { ProxySession } from './session.ts';
import type { TranslationOptions } from './translation.ts';

export interface ProxyOptions extends TranslationOptions {
  /** The path of the server's socket. */
  readonly server: string;
  /** How long the server may take for an answer, in milliseconds. */
  readonly timeout: number;
  readonly stop: Stop;
}

/** How long a server may take to let go of a client that has gone, in milliseconds. */
const LAST_PATIENCE = 5000;

/** Each client has a connection of its own to the server, which drops what a client has mapped when that ends. */
export class ProxyService implements RecordableService {
  readonly #options: ProxyOptions;
  #server: Server | undefined;
  #session: ProxySession | undefined;
  #requests: ServerRequests | undefined;

  constructor(options: ProxyOptions) {
    this.#options = options;
  }

  /**
   * The server is told of as much as a message has at most, as that bounds what is read of its migration data at once. Its own requests may be
   * larger than the client takes then: they go there in pieces.
   */
  connect(client: Client, { capabilities, maxDataXferSize }: Version): Readonly<Record<string, unknown>> {
    const { server: path, timeout, stop, warn } = this.#options;
    const requests = new ServerRequests(client, maxDataXferSize, warn);
    this.#requests = requests;
    const told = {
      ...without(capabilities),
      max_data_xfer_size: Math.max(maxDataXferSize, VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE),
    };
    this.#server = Server.connect(path, {
      timeout,
      stop,
      capabilities: told,
      onCommand: (command, link) => requests.take(command, link),
      beside: requests,
    });
    this.#session = new ProxySession(client, this.#server, this.#options);
    return without(this.#server.version.capabilities);
  }

  get recorded(): Recorded {
    return this.#session?.recorded ?? NOBODY;
  }

  answer(_client: Client, message: Message): void {
    this.#requests?.during(message, () => this.#session?.answer(message));
  }

  /** The server has gone: its client goes too. */
  get isLost(): boolean {
    return this.#server?.isLost === true;
  }

  get isMoving(): boolean {
    return this.#session?.isMoving === true;
  }

  get others(): readonly Connection[] {
    return this.#server?.connections ?? [];
  }

  attend(): void {
    this.#server?.attend();
  }

  work(): number {
    return Number.POSITIVE_INFINITY;
  }

  disconnect(): void {
    const [server, session, requests] = [this.#server, this.#session, this.#requests];
    this.#server = undefined;
    this.#session = undefined;
    this.#requests = undefined;
    for (const connection of server?.connections ?? [])
      connection.timeout = Math.min(connection.timeout, LAST_PATIENCE);
    try {
      requests?.end();
      session?.end();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      this.#options.warn(`the server's device could not be let go: ${error.message}`);
    } finally {
      server?.close();
    }
  }
}

const NOBODY: Recorded = { driver: undefined, protocol: undefined, region: undefined, section: undefined };

/** What of the capabilities passes: each side has a twin socket of its own. */
function without(capabilities: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(capabilities).filter(([name]) => name !== 'twin_socket'));
}
