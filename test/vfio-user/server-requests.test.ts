import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
  vfio_user_dma_region_access,
} from '../../src/abi/vfio-user.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { ServerRequests } from '../../src/vfio-user/proxy/server-requests.ts';
import { Client } from '../../src/vfio-user/server/client.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import { Link } from '../../src/vfio-user/wire/link.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { commands, requestOf, type Command } from '../support/main-loop-client.ts';

const LIMIT = 64;
const HEAD = vfio_user_dma_region_access.size;
const [GET, SET] = [0x1_0000, 0x2_0000];
const place = { at: 0x1000, size: 0x1000 };
const header = { isReply: false, noReply: false, errno: undefined } as const;

/** The real server and the real client, and between them, in the proxy: what it has of both. */
let server: Connection;
let link: Link;
let peer: Connection;
let client: Client;
let requests: ServerRequests;
let warnings: string[];

beforeEach(() => {
  const [[servers, ours], [mine, clients]] = [socketPair(SOCK_STREAM), socketPair(SOCK_STREAM)];
  const options = { peer: 'the peer', timeout: 1000 };
  server = new Connection(servers, options);
  peer = new Connection(clients, options);
  client = new Client(new Connection(mine, options));
  warnings = [];
  requests = new ServerRequests(client, LIMIT, (why) => void warnings.push(why));
  link = new Link(new Connection(ours, options), (command) => requests.take(command, link));
});

afterEach(() => {
  for (const each of [server, peer, link.connection, client]) each.close();
});

/** The server asks for some bytes, or sends some. */
function ask(id: number, command: number, count: number): void {
  const head = vfio_user_dma_region_access.encode({ addr: BigInt(id * 0x1000), count: BigInt(count) });
  const data = new Uint8Array(command === VFIO_USER_DMA_WRITE ? count : 0).fill(id);
  server.send({ id, command, ...header }, Buffer.concat([head, data]));
  link.attend();
}

/** The client answers. */
function answer({ id, command, body }: Message, errno?: 'EFAULT'): void {
  const { isWrite, size } = requestOf({ command, body } as Message);
  const data = new Uint8Array(isWrite ? 0 : size).fill(0xee);
  const reply = errno === undefined ? Buffer.concat([body.subarray(0, HEAD), data]) : new Uint8Array(0);
  peer.send({ ...header, id, command, isReply: true, errno }, reply);
  expect(client.next()).toBeUndefined();
}

function received(from: Connection): Message {
  const message = from.receive();
  if (message === undefined) throw new Error('nothing has come');
  return message;
}

const nothing = (from: Connection): boolean => from.receive() === undefined;

/** A command of the client's is carried out, and meanwhile this is done. */
function during([command, body]: Command, act: () => void = () => {}): void {
  requests.during({ id: 1, command, ...header, body, fds: [] }, act);
}

/** What may stop a device, and what does not. */
const STOPS: readonly [name: string, command: Command][] = [
  ['DMA_UNMAP', commands.unmap(place)],
  ['DEVICE_RESET', commands.reset()],
  ['a feature that is set', commands.feature(SET | 2, new Uint8Array(8))],
  ['a write of config space', commands.setBusMaster(false)],
  ['a write of the migration region', commands.write(9, 0, new Uint8Array(4))],
];
const OTHERS: readonly [name: string, command: Command][] = [
  ['GET_INFO', [VFIO_USER_DEVICE_GET_INFO, new Uint8Array(24)]],
  ['DMA_MAP', commands.map(place, 3)],
  ['DIRTY_PAGES', [VFIO_USER_DIRTY_PAGES, new Uint8Array(8)]],
  ['a feature that is asked for', commands.feature(GET | 8, new Uint8Array(24))],
  ['a feature without a struct', [16, new Uint8Array(4)]],
  ['a write of a BAR', commands.write(0, 0, new Uint8Array(4))],
  ['a read of config space', commands.read(7, 0, 4)],
  ['a write without a struct', [10, new Uint8Array(4)]],
];

describe('what a server asks its client', () => {
  it('is asked one after the other, in pieces, and answered to whom has asked', () => {
    ask(5, VFIO_USER_DMA_WRITE, 100);
    ask(6, VFIO_USER_DMA_READ, 8);
    const sizes: number[] = [];
    for (let n = 0; n < 3; n += 1) {
      const message = received(peer);
      expect(nothing(peer)).toBe(true);
      sizes.push(requestOf(message).size);
      answer(message);
    }
    expect(sizes).toEqual([64, 36, 8]);
    const [written, read] = [received(server), received(server)];
    expect([written.id, written.isReply, requestOf(written).size, written.body.length]).toEqual([5, true, 100, HEAD]);
    expect([read.id, read.body.subarray(HEAD)]).toEqual([6, new Uint8Array(8).fill(0xee)]);
    expect(requests.connections).toEqual([]);
  });

  it.each(STOPS)('a DMA_WRITE is answered once all of it was sent, if %s is open', (_name, command) => {
    ask(5, VFIO_USER_DMA_WRITE, 150);
    expect(nothing(server)).toBe(true);
    during(command, () => {
      expect(received(server)).toMatchObject({ id: 5, isReply: true, errno: undefined });
      ask(6, VFIO_USER_DMA_WRITE, 65); // and one that comes then
      expect(received(server)).toMatchObject({ id: 6, isReply: true, errno: undefined });
      ask(7, VFIO_USER_DMA_READ, 8);
      expect(nothing(server)).toBe(true);
    });
    ask(8, VFIO_USER_DMA_WRITE, 1);
    const asked = Array.from({ length: 6 }, () => received(peer));
    expect(asked.map((message) => [requestOf(message).at, requestOf(message).size])).toEqual([
      [0x5000, 64],
      [0x5040, 64],
      [0x5080, 22],
      [0x6000, 64],
      [0x6040, 1],
      [0x7000, 8],
    ]);
    for (const message of asked.slice(0, 4)) answer(message);
    const [late, read] = asked.slice(4);
    if (late !== undefined) answer(late, 'EFAULT');
    expect([warnings, nothing(server)]).toEqual([['the client fails a write that was answered: EFAULT'], true]);
    if (read !== undefined) answer(read);
    expect(received(server)).toMatchObject({ id: 7, errno: undefined });
    answer(received(peer));
    expect(received(server)).toMatchObject({ id: 8, errno: undefined });
  });

  it.each(OTHERS)('a DMA_WRITE is answered by the client, if %s is open', (_name, command) => {
    ask(5, VFIO_USER_DMA_WRITE, 8);
    during(command, () => expect(nothing(server)).toBe(true));
    answer(received(peer), 'EFAULT');
    expect(received(server)).toMatchObject({ id: 5, errno: 'EFAULT' });
  });

  it('is answered by a client with a twin socket, whatever is open', () => {
    const twin = new Connection(client.openTwin(), { peer: 'the peer', timeout: 1000 });
    ask(5, VFIO_USER_DMA_WRITE, 8);
    during(commands.reset(), () => expect(nothing(server)).toBe(true));
    const { id, command, body } = received(twin);
    twin.send({ ...header, id, command, isReply: true }, body.subarray(0, HEAD));
    expect(requests.connections).toHaveLength(2);
    expect(requests.attend()).toBe(true);
    expect(received(server)).toMatchObject({ id: 5, errno: undefined });
    twin.close();
  });

  it('is refused once the client has gone, and is asked of nobody', () => {
    for (const id of [5, 6]) ask(id, VFIO_USER_DMA_READ, 8);
    peer.close();
    expect(requests.attend()).toBe(true);
    for (const id of [5, 6]) expect(received(server)).toMatchObject({ id, errno: 'EIO' });
    ask(7, VFIO_USER_DMA_WRITE, 8);
    expect(received(server)).toMatchObject({ id: 7, errno: 'EIO' });
    expect([requests.attend(), requests.connections]).toEqual([false, []]);
  });

  it('is kept up to a bound', () => {
    for (let id = 0; id < 65; id += 1) ask(id, VFIO_USER_DMA_READ, 8);
    expect(() => ask(65, VFIO_USER_DMA_READ, 8)).toThrow('asks for more than is kept');
    expect(link.connection.broken?.errno).toBe('EPROTO');
  });

  it('keeps the commands of a client that come meanwhile for later', () => {
    ask(5, VFIO_USER_DMA_READ, 8);
    peer.send({ id: 77, command: 4, ...header }, new Uint8Array(24));
    answerUnseen(received(peer));
    expect(requests.attend()).toBe(true);
    expect(received(server)).toMatchObject({ id: 5, errno: undefined });
    expect([client.hasKept, client.next()?.id, client.hasKept]).toEqual([true, 77, false]);
  });
});

/** The client answers behind what it has asked. */
function answerUnseen({ id, command, body }: Message): void {
  peer.send({ ...header, id, command, isReply: true }, Buffer.concat([body, new Uint8Array(8)]));
}
