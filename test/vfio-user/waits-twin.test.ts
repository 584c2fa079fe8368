import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
  VFIO_USER_REGION_WRITE_MULTI,
  vfio_user_write_multi,
  vfio_user_write_one,
} from '../../src/abi/vfio-user.ts';
import { planServed } from '../../src/cli/serve.ts';
import { hasErrno } from '../../src/error.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { EmulatedService } from '../../src/vfio-user/emulated/emulated-service.ts';
import { Client } from '../../src/vfio-user/server/client.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { decodeVersion, encodeVersion } from '../../src/vfio-user/wire/version.ts';
import { commands, PAGE, type Command } from '../support/main-loop-client.ts';

const FROM = { at: 0x10_0000, size: PAGE };
const TO = { at: 0x10_4000, size: PAGE };
const place = ({ at, size }: typeof FROM): string => `0x${at.toString(16)}+${size}`;
const service = new EmulatedService(
  planServed(`qat,size=4K,dma=1000,dma-at=${place(TO)},dma-from=${place(FROM)}`),
  () => {},
);
const words = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const [SET, STATE, STOP] = [0x2_0000, 2, 1];

let client: Client;
let main: Connection;
let twin: Connection;
let now = 0;

beforeEach(() => {
  const [ours, theirs] = socketPair(SOCK_STREAM);
  client = new Client(new Connection(ours, { peer: 'the client', timeout: 50 }));
  main = new Connection(theirs, { peer: 'the server', timeout: 50 });
  const version = decodeVersion(encodeVersion(2, {}));
  twin = new Connection(client.openTwin(), { peer: 'the server', timeout: 50 });
  service.connect(client, version);
  client.version = version;
  for (const command of [commands.map(FROM, 1), commands.map(TO, 2), commands.setBusMaster(true)]) answerTo(command);
});

afterEach(() => {
  service.disconnect();
  client.close();
  main.close();
  twin.close();
});

/** The server's answer to a command, once it has come. */
function answerTo([command, body]: Command): Message | undefined {
  main.send({ id: 7, command, isReply: false, noReply: false, errno: undefined }, body);
  const message = client.next();
  if (message === undefined) throw new Error('the command is lost');
  service.answer(client, message);
  return main.receive();
}

/** Answers what is asked until something of a kind is, which is left open. */
function open(kind: number): Message {
  for (;;) {
    service.work((now += 5));
    const message = twin.receive();
    if (message?.command === kind) return message;
    if (message !== undefined) answer(message);
    client.attendTwin();
  }
}

function answer({ id, command, body }: Message): void {
  const data = command === VFIO_USER_DMA_READ ? new Uint8Array(PAGE) : new Uint8Array(0);
  const reply = { id, command, isReply: true, noReply: false, errno: undefined };
  twin.send(reply, Buffer.concat([body.subarray(0, 16), data]));
}

/** Whether the client owes an answer on its twin socket. */
const isOwed = (): boolean => client.connections.length > 1;

/** Writes of config space in one message. */
function writesOf(...all: readonly (readonly [offset: number, data: Uint8Array])[]): Command {
  const ones = all.map(([offset, data]) =>
    vfio_user_write_one.encode({
      offset: BigInt(offset),
      region: 7,
      count: data.length,
      data: Buffer.concat([data], 8).readBigUInt64LE(),
    }),
  );
  const head = vfio_user_write_multi.encode({ wr_cnt: BigInt(all.length) });
  return [VFIO_USER_REGION_WRITE_MULTI, Buffer.concat([head, ...ones])];
}

describe('the answer to a client with a twin socket', () => {
  const stops: readonly [name: string, command: Command][] = [
    ['STOP', commands.feature(SET | STATE, words(STOP, 0))],
    ['a write that ends bus mastering', commands.setBusMaster(false)],
    ['a write that ends bus mastering, and begins it anew', writesOf([4, words(0)], [4, words(4)])],
    ['a function level reset', commands.write(7, 0x74, Uint8Array.of(0x10, 0xa8))],
    ['DEVICE_RESET', commands.reset()],
    ['DMA_UNMAP of where it writes', commands.unmap(TO)],
    ['DMA_UNMAP of what it read', commands.unmap(FROM)],
  ];

  it.each(stops)('to %s comes behind its answer to DMA_WRITE', (_name, command) => {
    answer(open(VFIO_USER_DMA_WRITE));
    expect(isOwed()).toBe(true);
    expect(answerTo(command)).toMatchObject({ errno: undefined });
    expect(isOwed()).toBe(false);
  });

  it.each(stops)('to %s never comes if it does not answer DMA_WRITE', (_name, command) => {
    open(VFIO_USER_DMA_WRITE);
    let thrown: unknown;
    try {
      answerTo(command);
    } catch (error) {
      thrown = error;
    }
    expect(hasErrno(thrown, 'ETIMEDOUT')).toBe(true);
    expect([client.isLost, main.receive()]).toEqual([true, undefined]);
  });

  it.each(stops)('to %s waits for no DMA_READ, whose answer then says nothing', (_name, command) => {
    const read = open(VFIO_USER_DMA_READ);
    expect(answerTo(command)).toMatchObject({ errno: undefined });
    expect(isOwed()).toBe(true);
    answer(read);
    client.attendTwin();
    expect(isOwed()).toBe(false);
  });

  it('to what stops nothing waits for no DMA_WRITE', () => {
    const write = open(VFIO_USER_DMA_WRITE);
    expect(answerTo([VFIO_USER_DEVICE_GET_INFO, words(24, 0, 0, 0, 0, 0)])).toMatchObject({ errno: undefined });
    expect(answerTo(commands.write(7, 0x3c, Uint8Array.of(11)))).toMatchObject({ errno: undefined });
    expect(isOwed()).toBe(true);
    answer(write);
    client.attendTwin();
    expect(isOwed()).toBe(false);
  });
});
