import { vfio_region_info } from '../../abi/vfio-device.ts';
import {
  VFIO_USER_DEVICE_FEATURE,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  vfio_user_device_info,
  vfio_user_region_access,
} from '../../abi/vfio-user.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_state,
} from '../../abi/vfio-v2.ts';
import { ShimError } from '../../error.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import { isV2State } from '../../v2/states.ts';
import { dataError } from '../../vfio/client/errors.ts';
import type { Pointed, RegionPlace, VfioPort } from '../../vfio/port.ts';
import { answerTo, checked, type Asked } from '../wire/link.ts';
import { closeFds } from '../wire/message.ts';
import type { Messages, Place } from './buffered-v1.ts';
import { siftReplyFds } from './reply-fds.ts';
import { RegionFiles } from './region-files.ts';
import type { Server } from './server.ts';
import { MessageSessions } from './sessions.ts';

const NOTHING = new Uint8Array(0);
const HEAD = vfio_user_region_access.size;

const READ = 'VFIO_USER_REGION_READ';

function readOf({ region, at, count }: Place): Asked {
  const body = vfio_user_region_access.encode({ offset: BigInt(at), region, count });
  return { command: VFIO_USER_REGION_READ, name: READ, body };
}

/** A device behind a server of vfio-user: messages for requests and regions, and for what has a file, that. */
export class SocketPort implements VfioPort, Messages {
  readonly pageSize = PAGE_SIZE;
  readonly sessions: MessageSessions;
  readonly #server: Server;
  readonly #files = new RegionFiles();
  #usesFiles = true;
  /** A read that was begun. */
  #prepared: Place | undefined;

  constructor(server: Server) {
    this.#server = server;
    this.sessions = new MessageSessions(server);
  }

  getInfo(argument: Uint8Array): void {
    const { size } = vfio_user_device_info; // servers know no more, and none longer
    const body = argument.slice(0, size);
    vfio_user_device_info.view(body).argsz = size;
    const name = 'VFIO_USER_DEVICE_GET_INFO';
    fill(argument, this.#server.link.request({ command: VFIO_USER_DEVICE_GET_INFO, name, body }), size, name);
  }

  getRegionInfo(argument: Uint8Array): void {
    const name = 'VFIO_USER_DEVICE_GET_REGION_INFO';
    const { link } = this.#server;
    const reply = link.ask({ command: VFIO_USER_DEVICE_GET_REGION_INFO, name, body: argument });
    try {
      siftReplyFds(reply, VFIO_USER_DEVICE_GET_REGION_INFO, this.#server.mostFds);
      fill(argument, checked(reply, name, link.connection.peer).body, vfio_region_info.size, name);
      this.#files.note(argument, reply);
    } finally {
      closeFds(reply);
    }
  }

  feature(what: string, argument: Uint8Array, pointed?: Pointed): void {
    const { flags } = vfio_device_feature.decode(argument);
    const feature = flags & VFIO_DEVICE_FEATURE_MASK;
    const name = `VFIO_USER_DEVICE_FEATURE ${what}`;
    const ask = (body: Uint8Array): Uint8Array =>
      this.#server.link.request({ command: VFIO_USER_DEVICE_FEATURE, name, body });
    if (pointed !== undefined && feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_START) {
      fill(argument, ask(inline(argument, pointed)), pointed.at, name, pointed.at);
    } else if (pointed !== undefined && feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT) {
      const body = argument.slice(0, pointed.at);
      vfio_device_feature.view(body).argsz = pointed.at + pointed.bytes.length;
      const reply = ask(body);
      if (reply.length < pointed.at + pointed.bytes.length) throw impossible(name, reply.length);
      // a log only ever sets bits
      for (let n = 0; n < pointed.bytes.length; n += 1) {
        pointed.bytes[n] = (pointed.bytes[n] ?? 0) | (reply[pointed.at + n] ?? 0);
      }
    } else {
      fill(argument, ask(argument), vfio_device_feature.size, name);
      if (flags === (VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE)) this.#tellSession(argument);
    }
  }

  /** Says in `data_fd` what the kernel says there: whether a session has begun. */
  #tellSession(argument: Uint8Array): void {
    const state = vfio_device_feature_mig_state.view(argument, vfio_device_feature.size);
    const { device_state } = state;
    if (!isV2State(device_state)) return;
    state.data_fd = this.sessions.begins(device_state) ? 0 : -1;
    this.sessions.noteState(device_state);
  }

  reset(): void {
    this.drop();
    this.#server.link.request({ command: VFIO_USER_DEVICE_RESET, name: 'VFIO_USER_DEVICE_RESET', body: NOTHING });
  }

  get readLimit(): number {
    return this.#server.readLimit;
  }

  get writeLimit(): number {
    return this.#server.writeLimit;
  }

  byMessage(access: () => void): void {
    this.#usesFiles = false;
    try {
      access();
    } finally {
      this.#usesFiles = true;
    }
  }

  read(region: RegionPlace, at: number, into: Uint8Array): number {
    const fromFile = this.#usesFiles ? this.#files.read(region.index, at, into) : undefined;
    if (fromFile !== undefined) return fromFile;
    const count = Math.min(into.length, this.readLimit);
    const reply = this.#readNow({ region: region.index, at, count });
    const name = READ;
    const moved = movedBy(reply, name);
    if (moved > count || HEAD + moved > reply.length) throw impossible(name, reply.length);
    into.set(reply.subarray(HEAD, HEAD + moved));
    this.#server.link.connection.recycle(reply);
    return moved;
  }

  take(read: Place): Uint8Array | undefined {
    let reply: Uint8Array;
    try {
      reply = this.#readNow(read);
    } catch (error) {
      if (!(error instanceof ShimError) || error.code !== 'ERR_SYSCALL' || error.errno === undefined) throw error;
      throw dataError(READ, error.errno);
    }
    const moved = movedBy(reply, READ);
    if (moved > read.count || HEAD + moved > reply.length) throw impossible(READ, reply.length);
    return moved === read.count ? reply.subarray(HEAD, HEAD + moved) : undefined;
  }

  giveBack(bytes: Uint8Array): void {
    this.#server.link.connection.recycle(bytes);
  }

  /** Has the server answer a read that is sure to come, while something else is done. It is lost if something is written before. */
  prepare(read: Place): void {
    if (read.count > this.readLimit || isSame(this.#prepared, read)) return;
    this.drop();
    this.#server.link.begin(readOf(read));
    this.#prepared = read;
  }

  #readNow(read: Place): Uint8Array {
    const { link } = this.#server;
    if (!isSame(this.#prepared, read)) return link.request(readOf(read));
    this.#prepared = undefined;
    return answerTo(link.finish(), READ, link.connection.peer);
  }

  drop(): void {
    if (this.#prepared !== undefined) this.#server.link.abandon();
    this.#prepared = undefined;
  }

  write(region: RegionPlace, at: number, from: Uint8Array): number {
    this.drop();
    const toFile = this.#usesFiles ? this.#files.write(region.index, at, from) : undefined;
    if (toFile !== undefined) return toFile;
    const count = Math.min(from.length, this.writeLimit);
    const body = new Uint8Array(HEAD + count);
    vfio_user_region_access.encode({ offset: BigInt(at), region: region.index, count }, body);
    body.set(from.subarray(0, count), HEAD);
    const name = 'VFIO_USER_REGION_WRITE';
    const moved = movedBy(this.#server.link.request({ command: VFIO_USER_REGION_WRITE, name, body }), name);
    if (moved > count) throw impossible(name, moved);
    return moved;
  }

  close(): void {
    this.#files.close();
    this.#server.close();
  }
}

function isSame(one: Place | undefined, { region, at, count }: Place): boolean {
  return one?.region === region && one.at === at && one.count === count;
}

/** A request with what its pointer leads to in the pointer's place. */
function inline(argument: Uint8Array, { at, bytes }: Pointed): Uint8Array {
  const body = new Uint8Array(at + bytes.length);
  body.set(argument.subarray(0, at));
  body.set(bytes, at);
  vfio_device_feature.view(body).argsz = body.length;
  return body;
}

function movedBy(reply: Uint8Array, name: string): number {
  if (reply.length < HEAD) throw impossible(name, reply.length);
  return vfio_user_region_access.decode(reply).count;
}

/** Puts a reply where the request lay: at least `least` bytes of it, and at most `most`. */
function fill(argument: Uint8Array, reply: Uint8Array, least: number, name: string, most = argument.length): void {
  if (reply.length < least) throw impossible(name, reply.length);
  argument.set(reply.subarray(0, most));
}

function impossible(name: string, bytes: number): ShimError {
  return new ShimError('ERR_DEVICE', `vfio-user: the server answers ${name} with ${bytes} bytes`, { errno: 'EPROTO' });
}
