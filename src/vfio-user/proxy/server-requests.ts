import { VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio-device.ts';
import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_REGION_WRITE_MULTI,
} from '../../abi/vfio-user.ts';
import { VFIO_DEVICE_FEATURE_SET, vfio_device_feature } from '../../abi/vfio-v2.ts';
import { errnoNameOf, ShimError } from '../../error.ts';
import type { ErrnoName } from '../../abi/errno.ts';
import type { Client } from '../server/client.ts';
import { accessIn, writesIn } from '../server/region-access.ts';
import { MAX_BODY, type Connection } from '../wire/connection.ts';
import type { Beside, Link } from '../wire/link.ts';
import { closeFds, type Message } from '../wire/message.ts';
import { DmaPieces } from './dma-pieces.ts';

/** How many commands of a server, and how many bytes of them, are kept while its client is asked another. */
const MOST_KEPT = 64;
const MOST_BYTES = 8 * 1024 * 1024;

/** A command of the server's: DMA_READ, DMA_WRITE. */
interface Request {
  readonly command: Message;
  readonly link: Link;
  readonly pieces: DmaPieces;
}

/**
 * The commands of a server that its client is to carry out, one after the other. Nobody waits for the client's replies, which may answer nothing
 * while it waits itself (server/client.ts): its commands go on to the server meanwhile, and replies go where they belong whenever they come.
 *
 * A server may hold its answer to a command that stops its device until its DMA_WRITE is answered, which a client that waits for that
 * answer does not. So while such a command of a client with one socket is open, a DMA_WRITE is answered as soon as the client was sent it, as a
 * bridge of PCI does with memory that is written: the client has it before the answer to its command, on the same socket. If it fails,
 * nobody is told but the log.
 */
export class ServerRequests implements Beside {
  readonly #client: Client;
  readonly #limit: number;
  readonly #warn: (message: string) => void;
  readonly #kept: Request[] = [];
  #keptBytes = 0;
  #open: Request | undefined;
  #isPosting = false;
  #hasEnded = false;

  /** `limit`: the client's max_data_xfer_size. */
  constructor(client: Client, limit: number, warn: (message: string) => void) {
    this.#client = client;
    this.#limit = limit;
    this.#warn = warn;
  }

  /** A command of the server's has come. */
  take(command: Message, link: Link): void {
    closeFds(command);
    const request = { command, link, pieces: new DmaPieces(this.#limit, command) };
    if (this.#hasEnded || this.#client.isLost) {
      refuse(request, 'EIO'); // nobody waits for it once more
      return;
    }
    this.#kept.push(request);
    this.#keptBytes += command.body.length;
    if (this.#kept.length > MOST_KEPT || this.#keptBytes > MOST_BYTES) {
      throw link.connection.violated('asks for more than is kept while its client is asked');
    }
    this.#goOn();
  }

  /** Carries out a command of the client's. */
  during(message: Message, answer: () => void): void {
    this.#isPosting = !this.#client.hasTwin && mayStop(message);
    try {
      this.#goOn();
      answer();
    } finally {
      this.#isPosting = false;
    }
  }

  /** Asks the client what it can be asked now. */
  #goOn(): void {
    for (;;) {
      if (this.#open === undefined) {
        const next = this.#kept.shift();
        if (next === undefined) return;
        this.#keptBytes -= next.command.body.length;
        this.#open = next;
        this.#guarded(next, () => this.#askNext(next));
      }
      const open = this.#open;
      if (open === undefined) continue;
      if (!this.#isPosting || !open.pieces.isWrite) return;
      this.#guarded(open, () => this.#post(open));
    }
  }

  #askNext(request: Request): boolean {
    const { command, pieces } = request;
    const body = pieces.next();
    if (body === undefined) return false;
    this.#client.ask({ command: command.command, name: `command ${command.command}`, body }, (reply) => {
      closeFds(reply);
      if (this.#open === request) this.#guarded(request, () => this.#answered(request, reply));
      else if (reply.errno !== undefined) this.#warn(`the client fails a write that was answered: ${reply.errno}`);
      this.#goOn();
    });
    return true;
  }

  #answered(request: Request, reply: Message): void {
    const whole = request.pieces.take(reply);
    if (whole === undefined) {
      this.#askNext(request);
      return;
    }
    this.#open = undefined;
    if (whole.errno === undefined) request.link.reply(request.command, whole.body);
    else request.link.refuse(request.command, whole.errno);
  }

  /** Sends the client all of a write, and tells the server that it is done. */
  #post(request: Request): void {
    while (this.#askNext(request));
    this.#open = undefined;
    request.link.reply(request.command, request.pieces.done);
  }

  /** That the client has gone shows by itself: the server is told that it fails. */
  #guarded(request: Request, act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof ShimError) || request.link.connection.broken !== undefined) throw error;
      this.#open = undefined;
      refuse(request, this.#client.isLost ? 'EIO' : errnoNameOf(error));
    }
  }

  /** Where the client's replies come while the server is asked something, which may wait for one. */
  get connections(): readonly Connection[] {
    return this.#isAwaiting ? this.#client.connections : [];
  }

  get #isAwaiting(): boolean {
    return this.#open !== undefined && !this.#client.isLost;
  }

  attend(): boolean {
    if (!this.#isAwaiting) return false;
    try {
      return this.#client.attend();
    } catch (error) {
      if (!(error instanceof ShimError) || !this.#client.isLost) throw error;
      this.end(); // the server goes on without it
      return true;
    }
  }

  /** Nobody carries out any more what the server asks. */
  end(): void {
    this.#hasEnded = true;
    const requests = [...(this.#open === undefined ? [] : [this.#open]), ...this.#kept.splice(0)];
    this.#open = undefined;
    for (const request of requests) refuse(request, 'EIO');
  }
}

function refuse({ command, link }: Request, errno: ErrnoName): void {
  if (link.connection.broken === undefined) link.refuse(command, errno);
}

/**
 * A command that may stop a device, or take memory from it, without regard to what it says in particular: to answer a write too early is no harm. What a
 * device does by itself when its BARs are written is not known here.
 */
function mayStop(message: Message): boolean {
  const { command, body } = message;
  switch (command) {
    case VFIO_USER_DMA_UNMAP:
    case VFIO_USER_DEVICE_RESET:
      return true;
    case VFIO_USER_DEVICE_FEATURE:
      return (
        body.length >= vfio_device_feature.size &&
        (vfio_device_feature.decode(body).flags & VFIO_DEVICE_FEATURE_SET) !== 0
      );
    case VFIO_USER_REGION_WRITE:
    case VFIO_USER_REGION_WRITE_MULTI:
      return regionsOf(message).some((region) => region >= VFIO_PCI_CONFIG_REGION_INDEX);
    default:
      return false;
  }
}

/** Which regions are written; none if it is no write. */
function regionsOf(message: Message): number[] {
  try {
    const isMulti = message.command === VFIO_USER_REGION_WRITE_MULTI;
    return (isMulti ? writesIn(message.body) : [accessIn(message, MAX_BODY)]).map(({ region }) => region);
  } catch (error) {
    if (error instanceof ShimError) return []; // whoever carries it out says why
    throw error;
  }
}
