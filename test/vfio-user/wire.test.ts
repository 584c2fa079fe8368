import fc from 'fast-check';
import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { hasErrno, ShimError } from '../../src/error.ts';
import { createEventFd, OwnedFd } from '../../src/sys/fd.ts';
import { makeRoomToSend, sendPieces } from '../../src/sys/message-socket.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { Connection, MAX_BODY, MAX_FDS } from '../../src/vfio-user/wire/connection.ts';
import { Link } from '../../src/vfio-user/wire/link.ts';
import { closeFds, decodeHeader, encodeHeader, HEADER_SIZE } from '../../src/vfio-user/wire/message.ts';
import { decodeVersion, encodeVersion } from '../../src/vfio-user/wire/version.ts';

const TIMEOUT = 50;
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const command = { isReply: false, noReply: false, errno: undefined } as const;

/** How many descriptors this process has. */
const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** Two ends of a socket: a connection, and what the other end writes raw. */
function pair(timeout = TIMEOUT): { connection: Connection; raw: OwnedFd; other: Connection } {
  const [ours, theirs] = socketPair(SOCK_STREAM);
  const options = { peer: 'the peer', timeout };
  return { connection: new Connection(ours, options), raw: theirs, other: new Connection(theirs, options) };
}

describe('a header', () => {
  it.each([
    // libvfio-user: struct vfio_user_header, of a REGION_READ, of its reply, of one without a reply, of a failure with EINVAL
    [
      '0102 0900 20000000 00000000 00000000',
      { id: 0x0201, command: 9, isReply: false, noReply: false, errno: undefined, length: 16 },
    ],
    [
      '0102 0900 20000000 01000000 00000000',
      { id: 0x0201, command: 9, isReply: true, noReply: false, errno: undefined, length: 16 },
    ],
    [
      'ffff 0a00 10000000 10000000 00000000',
      { id: 0xffff, command: 10, isReply: false, noReply: true, errno: undefined, length: 0 },
    ],
    [
      '0000 0500 18000000 21000000 16000000',
      { id: 0, command: 5, isReply: true, noReply: false, errno: 'EINVAL', length: 8 },
    ],
  ] as const)('%s is read, and written the same', (text, header) => {
    expect(decodeHeader(hex(text), MAX_BODY)).toEqual(header);
    expect(encodeHeader(header, header.length)).toBeBytes(hex(text));
  });

  it('that reports a failure with a number that names none reports EINVAL', () => {
    expect(decodeHeader(hex('0000 0500 10000000 21000000 ffffff7f'), MAX_BODY).errno).toBe('EINVAL');
  });

  it.each([
    ['a size of less than itself', '0000 0900 0f000000 00000000 00000000'],
    ['a size beyond the largest message', '0000 0900 ffffffff 00000000 00000000'],
    ['a type that is none', '0000 0900 10000000 02000000 00000000'],
  ])('with %s is refused', (_what, text) => {
    expect(() => decodeHeader(hex(text), MAX_BODY)).toThrow(expect.objectContaining({ errno: 'EPROTO' }));
  });
});

describe('VERSION', () => {
  it('says what each side takes, and defaults for what it leaves out', () => {
    const capabilities = { max_msg_fds: 8, max_data_xfer_size: 1024, twin_socket: { supported: true, fd_index: 2 } };
    expect(decodeVersion(encodeVersion(2, capabilities))).toEqual({
      major: 0,
      minor: 2,
      capabilities,
      maxMsgFds: 8,
      maxDataXferSize: 1024,
      twinSocket: { supported: true, fdIndex: 2 },
    });
    expect(decodeVersion(hex('0000 0100'))).toMatchObject({ minor: 1, maxMsgFds: 1, maxDataXferSize: 2 ** 20 });
  });

  it.each([
    '{',
    '[]',
    '7',
    '{"capabilities":7}',
    '{"capabilities":{"max_msg_fds":"8"}}',
    '{"capabilities":{"max_data_xfer_size":-1}}',
    '{"capabilities":{"twin_socket":[]}}',
  ])('with the JSON %s is refused', (json) => {
    const body = Buffer.concat([hex('0000 0200'), Buffer.from(`${json}\0`)]);
    expect(() => decodeVersion(body)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
  });

  it('without an end, or without a version, is refused', () => {
    expect(() => decodeVersion(Buffer.concat([hex('0000 0200'), Buffer.from('{}')]))).toThrow('no end');
    expect(() => decodeVersion(hex('0000'))).toThrow('2 bytes');
  });
});

describe('a connection', () => {
  it('carries messages with descriptors beside them, each to the message that it was sent with', () => {
    const { connection, other } = pair();
    using event = createEventFd();
    other.send({ id: 1, command: 2, ...command }, hex('00'), []);
    other.send({ id: 2, command: 2, ...command }, hex('01'), [event.number, event.number, event.number]);
    other.send({ id: 3, command: 13, ...command }, new Uint8Array(0));
    const received = [connection.receive(), connection.receive(), connection.receive()];
    expect(received.map((message) => message && [message.id, [...message.body], message.fds.length])).toEqual([
      [1, [0], 0],
      [2, [1], 3],
      [3, [], 0],
    ]);
    for (const message of received) if (message !== undefined) closeFds(message);
    connection.close();
    other.close();
  });

  it('takes at once what it has room for, whose body lies in two places', () => {
    const { connection, other } = pair();
    const data = new Uint8Array(300_000).map((_, n) => n * 13);
    makeRoomToSend(connection.fd, data.length); // without it, it would wait for its peer
    for (const [body, end] of [
      [data.subarray(0, 8), data.subarray(8)],
      [data, data.subarray(0, 0)],
      [data.subarray(0, 0), data],
    ] as const) {
      connection.send({ ...command, id: 1, command: 9 }, body, [], end);
      expect(other.receive()?.body).toBeBytes(data);
    }
    connection.close();
    other.close();
  });

  it('has nothing of a message that has come in part, until the rest comes', () => {
    const { connection, raw } = pair(60_000);
    const bytes = Buffer.concat([encodeHeader({ id: 7, command: 9, ...command }, 3), hex('010203')]);
    for (const [n, byte] of bytes.entries()) {
      expect(connection.receive()).toBeUndefined();
      expect(sendPieces(raw.number, [Uint8Array.of(byte)], [])).toBe(1);
      if (n < bytes.length - 1) expect(connection.receive()).toBeUndefined();
    }
    expect(connection.receive()).toMatchObject({ id: 7, body: hex('010203') });
    connection.close();
    raw.close();
  });

  it('ends if the rest does not come in time', () => {
    const { connection, raw } = pair();
    sendPieces(raw.number, [hex('0000')], []);
    expect(connection.receive()).toBeUndefined();
    expect(() => {
      for (;;) {
        connection.waitToReceive(Number.POSITIVE_INFINITY, 'is silent');
        connection.receive();
      }
    }).toThrow(expect.objectContaining({ errno: 'ETIMEDOUT' }));
    expect(connection.broken?.errno).toBe('ETIMEDOUT');
    connection.close();
    raw.close();
  });

  it('ends if the peer closes, takes nothing, or sends too many descriptors; none of those is kept', () => {
    const before = descriptors();
    const closed = pair();
    closed.raw.close();
    expect(() => closed.connection.receive()).toThrow(expect.objectContaining({ errno: 'ECONNRESET' }));
    expect(() => closed.connection.send({ id: 0, command: 9, ...command }, hex('00'))).toThrow('closed');
    closed.connection.close();

    const full = pair();
    expect(() => {
      for (;;) full.connection.send({ id: 0, command: 9, ...command }, new Uint8Array(65_536));
    }).toThrow(expect.objectContaining({ errno: 'ETIMEDOUT' }));
    full.connection.close();
    full.raw.close();

    const many = pair();
    using event = createEventFd();
    const fds = Array.from({ length: MAX_FDS + 1 }, () => event.number);
    expect(sendPieces(many.raw.number, [hex('00')], fds)).toBe(1);
    expect(() => many.connection.receive()).toThrow(`${MAX_FDS + 1} descriptors`);
    many.connection.close();
    many.raw.close();
    event.close();
    expect(descriptors()).toBe(before);
  });

  it('takes any bytes for messages or for its end, and keeps no descriptor', () => {
    const before = descriptors();
    const event = createEventFd();
    const bytes = fc.uint8Array({ maxLength: 64 });
    const plausible = fc
      .record({ id: fc.nat(0xffff), size: fc.oneof(fc.nat(40), fc.nat(0xffff_ffff)), flags: fc.nat(0x3f), body: bytes })
      .map(({ id, size, flags, body }) => {
        const head = new Uint8Array(16);
        const view = new DataView(head.buffer);
        view.setUint16(0, id, true);
        view.setUint16(2, id % 20, true);
        view.setUint32(4, size, true);
        view.setUint32(8, flags, true);
        return Uint8Array.from([...head, ...body]);
      });
    fc.assert(
      fc.property(fc.array(fc.oneof(bytes, plausible), { minLength: 1, maxLength: 8 }), fc.nat(3), (pieces, fds) => {
        const { connection, raw } = pair();
        const beside = Array.from({ length: fds }, () => event.number);
        try {
          for (const piece of pieces) {
            if (piece.length > 0) sendPieces(raw.number, [piece], beside);
            for (let message = connection.receive(); message !== undefined; message = connection.receive()) {
              expect(message.body.length).toBeLessThanOrEqual(MAX_BODY);
              closeFds(message);
            }
          }
        } catch (error) {
          expect(error).toBeInstanceOf(ShimError);
          expect(connection.broken).toBeDefined();
        }
        connection.close();
        raw.close();
      }),
    );
    event.close();
    expect(descriptors()).toBe(before);
  });
});

describe('a link', () => {
  const request = { command: 9, name: 'REGION_READ', body: hex('00') };

  it('takes the reply of its own id, whatever the peer asks first', () => {
    const { connection, other } = pair();
    const commands: number[] = [];
    const link = new Link(connection, (message) => {
      commands.push(message.command);
      link.reply(message, hex('aa'));
    });
    // ids of the two sides have nothing to do with each other
    other.send({ id: 0, command: 11, ...command }, hex('01'));
    other.send({ id: 0, command: 9, isReply: true, noReply: false, errno: undefined }, hex('02'));
    expect(link.request(request)).toBeBytes(hex('02'));
    expect(commands).toEqual([11]);
    expect(other.receive()).toMatchObject({ command: 9, isReply: false });
    expect(other.receive()).toMatchObject({ command: 11, isReply: true, body: hex('aa') });
    connection.close();
    other.close();
  });

  it('tells a refusal by its errno, whatever body that has', () => {
    const { connection, other } = pair();
    const link = new Link(connection, () => {});
    other.send({ id: 0, command: 9, isReply: true, noReply: false, errno: 'ENOSPC' }, hex('010203'));
    other.send({ id: 1, command: 9, isReply: true, noReply: false, errno: undefined }, hex('04'));
    expect(() => link.request(request)).toThrow(expect.objectContaining({ code: 'ERR_SYSCALL', errno: 'ENOSPC' }));
    expect(link.request(request)).toBeBytes(hex('04'));
    connection.close();
    other.close();
  });

  it('tells who has asked of a reply when it comes, in whatever order, and uses no id that is owed', () => {
    const { connection, other } = pair();
    const link = new Link(connection, () => {});
    const told: string[] = [];
    link.send(request, ({ body }) => told.push(`first ${body[0]}`));
    link.send(request, ({ body }) => told.push(`second ${body[0]}`));
    const answer = (id: number): void => {
      other.send({ id, command: 9, isReply: true, noReply: false, errno: undefined }, Uint8Array.of(id));
      expect(link.attend()).toBe(true);
    };
    const ids = [other.receive()?.id, other.receive()?.id];
    answer(1);
    for (let n = 2; n < 65_536; n += 1) {
      link.post(request);
      ids.push(other.receive()?.id);
    }
    link.send(request, ({ body }) => told.push(`third ${body[0]}`));
    expect(other.receive()?.id).toBe(1); // 0 is owed
    expect(new Set(ids).size).toBe(65_536);
    answer(0);
    answer(1);
    expect([told, link.isOwed]).toEqual([['second 1', 'first 0', 'third 1'], false]);
    connection.close();
    other.close();
  });

  it('attends to what is beside before it takes the reply that it waits for', () => {
    const [{ connection, other }, beside] = [pair(), pair()];
    const link = new Link(connection, () => {});
    const came: unknown[] = [];
    const attend = (): boolean => {
      const message = beside.connection.receive();
      if (message !== undefined) came.push(message.command);
      return message !== undefined;
    };
    link.beside = () => [{ connections: [beside.connection], attend }];
    const message = { isReply: false, noReply: false, errno: undefined };
    beside.other.send({ ...message, id: 7, command: 10 }, hex(''));
    other.send({ ...message, id: 0, command: 9, isReply: true }, hex('02'));
    link.send(request, ({ body }) => came.push(body));
    link.drain();
    expect(came).toEqual([10, hex('02')]);
    for (const each of [connection, other, beside.connection, beside.other]) each.close();
  });

  it('takes a reply that was in time, however late it looks, whole and in pieces', () => {
    const { connection, other, raw } = pair();
    const link = new Link(connection, () => {});
    const reply = { id: 0, command: 9, isReply: true, noReply: false, errno: undefined };
    const came: Uint8Array[] = [];
    for (const cut of [0, 5, HEADER_SIZE, HEADER_SIZE + 1]) {
      connection.timeout = 60_000;
      link.send(request, ({ body }) => came.push(body));
      const whole = Buffer.concat([encodeHeader({ ...reply, id: came.length }, 2), hex('0203')]);
      if (cut > 0) sendPieces(raw.number, [whole.subarray(0, cut)], []);
      expect(connection.receive()).toBeUndefined();
      sendPieces(raw.number, [whole.subarray(cut)], []);
      connection.timeout = 0; // all time is over
      link.drain();
    }
    expect(came).toEqual(Array.from({ length: 4 }, () => hex('0203')));
    link.send(request, () => {});
    expect(() => link.drain()).toThrow('has not answered REGION_READ within 0 s');
    connection.close();
    other.close();
  });

  it('ends with a reply that is late, for longer than it could not come', () => {
    const { connection, other } = pair(0);
    const link = new Link(connection, () => {});
    link.send(request, () => {});
    link.excuse(60_000);
    const late = performance.now() + 1;
    while (performance.now() < late);
    expect(link.deadline).toBeGreaterThan(performance.now() + 50_000);
    link.checkOwed();
    link.excuse(-60_000);
    expect(() => link.checkOwed()).toThrow('has not answered REGION_READ');
    expect(connection.broken?.errno).toBe('ETIMEDOUT');
    connection.close();
    other.close();
  });

  it('ends with a reply that nobody has asked, and with a peer that does not answer', () => {
    const wrong = pair();
    const link = new Link(wrong.connection, () => {});
    wrong.other.send({ id: 99, command: 9, isReply: true, noReply: false, errno: undefined }, hex(''));
    expect(() => link.ask(request)).toThrow('nobody has asked');
    expect(wrong.connection.broken?.errno).toBe('EPROTO');
    wrong.connection.close();
    wrong.other.close();

    const silent = pair();
    let thrown: unknown;
    try {
      new Link(silent.connection, () => {}).ask(request);
    } catch (error) {
      thrown = error;
    }
    expect(hasErrno(thrown, 'ETIMEDOUT')).toBe(true);
    silent.connection.close();
    silent.other.close();
  });
});
