import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { VFIO_USER_DEVICE_GET_INFO, VFIO_USER_DMA_READ, VFIO_USER_VERSION } from '../../src/abi/vfio-user.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { syscall, withAddress } from '../../src/sys/libc.ts';
import { connectNow } from '../../src/sys/message-socket.ts';
import { SocketFile } from '../../src/sys/socket-file.ts';
import type { Client } from '../../src/vfio-user/server/client.ts';
import { serve, type Service } from '../../src/vfio-user/server/serve.ts';
import { Connection } from '../../src/vfio-user/wire/connection.ts';
import type { Message } from '../../src/vfio-user/wire/message.ts';
import { encodeVersion } from '../../src/vfio-user/wire/version.ts';

/*
 * The loop of a server, whose client does what it does in this thread: between two turns.
 */

const TIMEOUT = 50;
const header = { isReply: false, noReply: false, errno: undefined } as const;
let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'serve-loop-'))));
afterEach(() => rmSync(directory, { recursive: true }));

/** What the client does at its turn with what it has received; with nothing left to do the server ends. */
type Turn = (peer: Connection, message: Message, served: Client) => void;

/** Serves a client that does so, and says why its connections ended. `takes`: milliseconds that a command takes. */
function served(takes: number, turns: readonly Turn[]): string[] {
  const stop = createEventFd();
  const path = join(directory, 'socket');
  const logged: string[] = [];
  const left = [...turns];
  let peer: Connection | undefined;
  let client: Client | undefined;
  const service: Service = {
    connect: (connected) => {
      client = connected;
      return {};
    },
    answer: (asking, message) => {
      const end = performance.now() + takes;
      while (performance.now() < end);
      asking.reply(message, new Uint8Array(0));
    },
    work: (now) => {
      if (peer === undefined) {
        const fd = connectNow(path);
        if (fd === undefined) throw new Error('nobody listens');
        peer = new Connection(fd, { peer: 'the server', timeout: 20_000 });
        peer.send({ id: 1, command: VFIO_USER_VERSION, ...header }, encodeVersion(2, {}));
      }
      const message = client?.isLost === false && left.length > 0 ? peer.receive() : undefined;
      if (message !== undefined && client !== undefined) left.shift()?.(peer, message, client);
      if (left.length === 0) withAddress(BigUint64Array.of(1n), (at) => syscall('stop', 'write', stop.number, at, 8));
      return now + 5;
    },
    disconnect: () => left.splice(0),
  };
  const file = new SocketFile(path);
  serve(file, service, {
    timeout: TIMEOUT,
    stop: { fd: stop.number, heeded: true },
    log: (what) => void logged.push(what),
  });
  file.close();
  peer?.close();
  stop.close();
  return logged.filter((what) => what.includes('ends')).map((what) => what.replace(/^.* ends: (vfio-user: )?/, ''));
}

const asks: Turn = (_peer, _message, client) => {
  client.ask({ command: VFIO_USER_DMA_READ, name: 'DMA_READ', body: new Uint8Array(16) }, () => {});
};
let open: Message;
const keeps: Turn = (peer, message) => {
  open = message;
  peer.send({ id: 2, command: VFIO_USER_DEVICE_GET_INFO, ...header }, new Uint8Array(24));
};
const answers: Turn = (peer, message) => {
  expect(message).toMatchObject({ id: 2, isReply: true });
  peer.send({ ...header, id: open.id, command: open.command, isReply: true }, open.body);
  peer.send({ id: 3, command: VFIO_USER_DEVICE_GET_INFO, ...header }, new Uint8Array(24));
};
const isAnswered: Turn = (_peer, message) => expect(message).toMatchObject({ id: 3, isReply: true });

it('lets a client that waits for an answer owe a reply for as long', () => {
  expect(served(2 * TIMEOUT, [asks, keeps, answers, isAnswered])).toEqual(['this server ends']);
});

it('ends the connection of a client that has its answers and owes a reply for too long', () => {
  const asksOn: Turn = (peer) =>
    peer.send({ id: 3, command: VFIO_USER_DEVICE_GET_INFO, ...header }, new Uint8Array(24));
  expect(served(0, [asks, keeps, ...Array.from({ length: 10_000 }, () => asksOn)])).toEqual([
    `the client has not answered DMA_READ within ${TIMEOUT / 1000} s`,
  ]);
});
