import { openSync, readFileSync } from 'node:fs';
import { POLLIN } from '../../src/abi/fcntl.ts';
import { hasErrno } from '../../src/error.ts';
import { createEventFd, OwnedFd } from '../../src/sys/fd.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { connectNow } from '../../src/sys/message-socket.ts';
import { PollSet } from '../../src/sys/poll.ts';
import { socketPair, SOCK_STREAM } from '../../src/sys/socket.ts';
import { SocketFile } from '../../src/sys/socket-file.ts';
import { Connection, MAX_BODY } from '../../src/vfio-user/wire/connection.ts';
import { closeFds, type Message } from '../../src/vfio-user/wire/message.ts';
import { chance } from './chance.ts';

/*
 * A program that stands between a client and a server, and hands on what they say, with other descriptors: a server that does not keep to
 * the protocol. Arguments: where it listens, the server's socket, and a file that says what it does with which reply, in JSON.
 */

export type Kind = 'file' | 'event' | 'stream' | 'datagram' | 'directory';

/** What is done to the replies to a command; to all commands without one. */
export interface Alteration {
  readonly command?: number;
  /** The server's own descriptors go. */
  readonly drops?: boolean;
  /** These come, before those of the server. */
  readonly adds?: readonly Kind[];
  /** The command has failed. */
  readonly fails?: boolean | 'EAGAIN';
  /** All at random instead, from this on. */
  readonly seed?: number;
  /** With a seed: other bytes, and not other descriptors. */
  readonly bytes?: boolean;
}

const TIMEOUT = 20_000;
const KINDS: readonly Kind[] = ['file', 'event', 'stream', 'datagram', 'directory'];

/** Descriptors to send; the other ends of sockets stay here, so that nobody finds them closed. */
const [stream, streamEnd] = socketPair(SOCK_STREAM);
const [datagram, datagramEnd] = socketPair();
const sources: Readonly<Record<Kind, OwnedFd>> = {
  file: createSharedMemory('relay', 65_536),
  event: createEventFd(),
  stream,
  datagram,
  directory: new OwnedFd(openSync('/', 'r')),
};
const held = [streamEnd, datagramEnd];

const draws = new Map<number, ReturnType<typeof chance>>();

const EDGES = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/** With one reply in 24, something is done to its bytes: some are others, are left out, or are more. */
function otherBytes(seed: number, message: Message): Message {
  const draw = drawing(seed);
  if (draw(24) > 0) return message;
  const body = message.body.slice();
  const at = draw(body.length + 1);
  switch (draw(6)) {
    case 0:
      if (at < body.length) body[at] = draw(256);
      return { ...message, body };
    case 1:
      return { ...message, body: body.subarray(0, at) };
    case 2:
      return { ...message, body: Buffer.concat([body, body.subarray(at)]).subarray(0, MAX_BODY) };
    case 3:
      if (body.length >= 4) {
        const word = 4 * draw(Math.min(16, body.length >> 2));
        new DataView(body.buffer).setUint32(word, EDGES[draw(EDGES.length)] ?? 0, true);
      }
      return { ...message, body };
    case 4:
      return { ...message, errno: draw(2) === 0 ? 'EIO' : 'EAGAIN' };
    default:
      return { ...message, id: draw(0x1_0000) };
  }
}

function drawing(seed: number): ReturnType<typeof chance> {
  const draw = draws.get(seed) ?? chance(seed);
  draws.set(seed, draw);
  return draw;
}

/** With one reply in 24, something is done to what they carry. */
function atRandom(seed: number): Alteration {
  const draw = drawing(seed);
  if (draw(24) > 0) return {};
  const adds = Array.from({ length: draw(12) }, () => KINDS[draw(KINDS.length)] ?? 'file');
  return { drops: draw(2) === 0, fails: draw(16) === 0, adds };
}

function handOn(from: Connection, to: Connection, alterations: string | undefined): void {
  for (let message = from.receive(); message !== undefined; message = from.receive()) {
    let alteration: Alteration = alterations === undefined ? {} : JSON.parse(readFileSync(alterations, 'utf8'));
    const { seed, bytes = false } = alteration;
    if (seed !== undefined) alteration = bytes ? {} : atRandom(seed);
    const isMeant = alteration.command === undefined || alteration.command === message.command;
    const altered = seed !== undefined && bytes && message.isReply ? otherBytes(seed, message) : message;
    send(to, altered, message.isReply && isMeant ? alteration : {});
    closeFds(message);
  }
}

function send(to: Connection, message: Message, { drops = false, adds = [], fails = false }: Alteration): void {
  const own = drops ? [] : message.fds.flatMap((fd) => (fd === undefined ? [] : [fd.number]));
  const fds = [...adds.map((kind) => sources[kind].number), ...own];
  to.send({ ...message, errno: fails === true ? 'EIO' : fails === false ? message.errno : fails }, message.body, fds);
}

function relay(client: Connection, server: Connection, alterations: string): void {
  const poll = new PollSet(2);
  try {
    for (;;) {
      poll.set(0, client.fd, POLLIN);
      poll.set(1, server.fd, POLLIN);
      poll.wait(2);
      handOn(client, server, undefined);
      handOn(server, client, alterations);
    }
  } catch (error) {
    if (!hasErrno(error, 'ECONNRESET')) throw error;
  } finally {
    client.close();
    server.close();
  }
}

function main([listen = '', server = '', alterations = '']: readonly string[]): void {
  const file = new SocketFile(listen);
  const poll = new PollSet(1);
  process.stdout.write('listens\n');
  while (held.length > 0) {
    poll.set(0, file.fd, POLLIN);
    poll.wait(1);
    const accepted = file.accept();
    if (accepted === undefined) continue;
    const connected = connectNow(server);
    if (connected === undefined) throw new Error('the server takes no client');
    relay(
      new Connection(accepted, { peer: 'the client', timeout: TIMEOUT }),
      new Connection(connected, { peer: 'the server', timeout: TIMEOUT }),
      alterations,
    );
  }
}

main(process.argv.slice(2));
