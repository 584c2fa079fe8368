import { afterEach, beforeEach, expect, it } from 'vitest';
import { VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE } from '../../src/abi/vfio-user.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { Client } from '../../src/vfio-user/server/client.ts';
import { ClientMemory } from '../../src/vfio-user/server/client-memory.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import { decodeVersion, encodeVersion } from '../../src/vfio-user/wire/version.ts';
import { requestOf } from '../support/main-loop-client.ts';

let client: Client;
let peer: Connection;
let memory: ClientMemory;

beforeEach(() => {
  const [ours, theirs] = socketPair(SOCK_STREAM);
  client = new Client(new Connection(ours, { peer: 'the client', timeout: 1000 }));
  client.version = decodeVersion(encodeVersion(2, { max_data_xfer_size: 8 }));
  peer = new Connection(theirs, { peer: 'the server', timeout: 1000 });
  memory = new ClientMemory();
});

afterEach(() => {
  client.close();
  peer.close();
});

/** The client answers what it was asked: a read by bytes of that value. Returns what it was. */
function answered(value = 0): [command: number, at: number, size: number, data: number[]] {
  const message = peer.receive();
  if (message === undefined) throw new Error('nothing is asked');
  const { id, command, body } = message;
  const { isWrite, at, size, data } = requestOf(message);
  const reply = Buffer.concat([body.subarray(0, 16), new Uint8Array(isWrite ? 0 : size).fill(value)]);
  peer.send({ id, command, isReply: true, noReply: false, errno: undefined }, reply);
  client.next();
  return [command, at, size, [...data]];
}

const isAsked = (): boolean => peer.receive() !== undefined;

it('is awaited until all pieces are answered, and then it is there', () => {
  const bytes = new Uint8Array(10);
  for (const [at, size] of [
    [0x1000, 8],
    [0x1008, 2],
  ] as const) {
    expect(memory.read(client, 0x1000, bytes)).toBe('awaited');
    expect(memory.read(client, 0x1000, bytes)).toBe('awaited'); // is asked once
    expect(answered(at)).toEqual([VFIO_USER_DMA_READ, at, size, []]);
  }
  expect(memory.read(client, 0x1000, bytes)).toBe(true);
  expect(bytes).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 8, 8));
  expect([memory.isOwed, isAsked()]).toEqual([false, false]);
});

it('that was abandoned is asked no more of, and what comes next waits for the reply, which says nothing', () => {
  const bytes = Uint8Array.from({ length: 10 }, (_, n) => n);
  expect(memory.write(client, 0x1000, bytes)).toBe('awaited');
  expect(memory.owesAbandonedWrite).toBe(false);
  memory.abandon();
  expect([memory.owesAbandonedWrite, memory.write(client, 0x1000, bytes)]).toEqual([true, 'awaited']);
  expect(answered()).toEqual([VFIO_USER_DMA_WRITE, 0x1000, 8, [0, 1, 2, 3, 4, 5, 6, 7]]);
  expect([memory.owesAbandonedWrite, isAsked()]).toEqual([false, false]);
  expect(memory.write(client, 0x1000, bytes)).toBe('awaited');
  expect(answered()).toEqual([VFIO_USER_DMA_WRITE, 0x1000, 8, [0, 1, 2, 3, 4, 5, 6, 7]]); // from its beginning
  memory.abandon();
  expect(memory.write(client, 0x1000, bytes.subarray(8))).toBe('awaited');
  expect(answered()).toEqual([VFIO_USER_DMA_WRITE, 0x1000, 2, [8, 9]]);
  expect(memory.write(client, 0x1000, bytes.subarray(8))).toBe(true);
});

it('that nobody has come for again is no answer for what is accessed next', () => {
  const bytes = new Uint8Array(4);
  expect(memory.write(client, 0x1000, bytes)).toBe('awaited');
  answered();
  expect(memory.read(client, 0x1000, bytes)).toBe('awaited');
  expect(answered(1)).toEqual([VFIO_USER_DMA_READ, 0x1000, 4, []]);
  expect(memory.read(client, 0x2000, bytes)).toBe('awaited');
  expect(answered(2)).toEqual([VFIO_USER_DMA_READ, 0x2000, 4, []]);
  expect(memory.read(client, 0x2000, bytes.subarray(1))).toBe('awaited');
  expect(answered(3)).toEqual([VFIO_USER_DMA_READ, 0x2000, 3, []]);
  expect(bytes).toEqual(new Uint8Array(4));
});
