import { describe, expect, it } from 'vitest';
import { VFIO_USER_MIG_DATA_READ, vfio_user_mig_data } from '../../src/abi/vfio-user.ts';
import { createEventFd, OwnedFd } from '../../src/sys/fd.ts';
import { sendPieces } from '../../src/sys/message-socket.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import type { Server } from '../../src/vfio-user/client/server.ts';
import { MessageSessions } from '../../src/vfio-user/client/sessions.ts';
import { Connection, MAX_BODY } from '../../src/vfio-user/wire/connection.ts';
import { Link } from '../../src/vfio-user/wire/link.ts';
import { closeFds, encodeHeader, type Header, type Message } from '../../src/vfio-user/wire/message.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';

const HEAD = vfio_user_mig_data.size;
const SIZE = 50_000;

/** A link whose peer is the test, which writes replies before they are asked for: ids count from 0. */
function linked(): { link: Link; peer: Connection; raw: OwnedFd; commands: Message[]; close: () => void } {
  const [ours, theirs] = socketPair(SOCK_STREAM);
  const options = { peer: 'the peer', timeout: 5000 };
  const commands: Message[] = [];
  const link = new Link(new Connection(ours, options), (message) => void commands.push(message));
  const peer = new Connection(theirs, options);
  const close = (): void => {
    link.connection.close();
    peer.close();
  };
  return { link, peer, raw: theirs, commands, close };
}

const replyTo = (id: number, more: Partial<Header> = {}): Omit<Header, 'length'> => ({
  id,
  command: VFIO_USER_MIG_DATA_READ,
  isReply: true,
  noReply: false,
  errno: undefined,
  ...more,
});

/** The memory of a reply, between bytes that belong to somebody else. */
class Fenced {
  readonly all = new Uint8Array(SIZE + 200).fill(0x5a);
  readonly place = this.all.subarray(100, 100 + SIZE);

  /** The place has these bytes first, and nothing else was touched. */
  check(bytes: Uint8Array): void {
    const expected = new Uint8Array(this.all.length).fill(0x5a);
    expected.set(bytes, 100);
    expect(this.all).toBeBytes(expected);
  }
}

const NOTHING = new Uint8Array(0);

describe('a reply that has a place', () => {
  const asked = (fenced: Fenced) => ({
    command: VFIO_USER_MIG_DATA_READ,
    name: 'it',
    body: new Uint8Array(HEAD),
    place: { head: HEAD, data: fenced.place },
  });

  it.each([1, 4096, SIZE - 1, SIZE])('is received there, with %i bytes, however it comes', (length) => {
    const data = noise(length, 3);
    const head = noise(HEAD, 4);
    for (const piece of [1, 7, 16, 24, 1000, 60_000]) {
      if (length / piece > 5000) continue;
      const { link, raw, close } = linked();
      const fenced = new Fenced();
      link.begin(asked(fenced));
      const whole = Buffer.concat([encodeHeader(replyTo(0), HEAD + length), head, data]);
      for (let sent = 0; sent < whole.length; sent += piece) {
        expect(sendPieces(raw.number, [whole.subarray(sent, sent + piece)], [])).toBeGreaterThan(0);
        link.attend();
      }
      fenced.check(data); // it is here before anybody waits for it
      const reply = link.finish();
      expect(reply.body).toBeBytes(head);
      expect(reply.data?.byteOffset).toBe(fenced.place.byteOffset);
      expect(reply.data).toBeBytes(data);
      close();
    }
  });

  it.each([
    ['is longer', SIZE + 1, {}],
    ['is as long as a message can be', MAX_BODY - HEAD, {}],
    ['tells a failure', SIZE, { errno: 'EIO' }],
    ['has nothing behind its head', 0, {}],
    ['has not even its head', -1, {}],
  ] as const)('is received elsewhere if it %s', (_what, length, more) => {
    const { link, peer, close } = linked();
    const fenced = new Fenced();
    const body = noise(HEAD + length, 5);
    link.begin(asked(fenced));
    sendAll(peer, link, replyTo(0, more), body);
    const reply = link.finish();
    expect(reply.errno).toBe('errno' in more ? more.errno : undefined);
    expect(reply.body).toBeBytes(body);
    expect(reply.data).toBeUndefined();
    fenced.check(NOTHING);
    close();
  });

  it('is none of the commands with its id, none that nobody wants, and none of what comes after it', () => {
    const { link, peer, commands, close } = linked();
    const fenced = new Fenced();
    const [first, second] = [noise(SIZE, 6), noise(SIZE, 7)];
    const body = (of: Uint8Array): Uint8Array => Buffer.concat([new Uint8Array(HEAD), of]);
    link.begin(asked(fenced));
    peer.send(replyTo(0, { isReply: false }), body(first));
    while (!link.attend());
    expect(commands).toHaveLength(1);
    fenced.check(NOTHING);
    link.abandon();
    peer.send(replyTo(0), body(first));
    peer.send(replyTo(1), body(second));
    expect(link.ask({ ...asked(fenced), place: undefined }).body.subarray(HEAD)).toBeBytes(second);
    fenced.check(NOTHING);
    peer.send(replyTo(2), body(first));
    expect(link.ask(asked(fenced)).data).toBeBytes(first);
    fenced.check(first);
    fenced.place.fill(0x5a);
    peer.send(replyTo(2), body(second)); // once more, which nobody has asked for
    expect(() => link.attend()).toThrow('nobody has asked');
    fenced.check(NOTHING);
    close();
  });

  it('has its descriptors, which are closed with it', () => {
    const { link, peer, close } = linked();
    const fenced = new Fenced();
    using event = createEventFd();
    link.begin(asked(fenced));
    peer.send(replyTo(0), noise(HEAD + 100, 8), [event.number]);
    const reply = link.finish();
    expect([reply.fds.length, reply.data?.length]).toEqual([1, 100]);
    closeFds(reply);
    close();
  });
});

/** Sends more than a socket takes at once, while the other end receives. */
function sendAll(from: Connection, to: Link, header: Omit<Header, 'length'>, body: Uint8Array): void {
  const whole = Buffer.concat([encodeHeader(header, body.length), body]);
  for (let sent = 0; sent < whole.length;) {
    const length = sendPieces(from.fd, [whole.subarray(sent)], []);
    if (length > 0) sent += length;
    to.attend();
  }
}

/** A session in STOP_COPY, whose server is the test. */
function saving(dataReadLimit = SIZE): ReturnType<typeof linked> & { session: V2DataSession } {
  const world = linked();
  const sessions = new MessageSessions({ link: world.link, dataReadLimit } as unknown as Server);
  sessions.noteState(V2.STOP_COPY);
  return { ...world, session: sessions.begin() };
}

function dataReply(data: Uint8Array, size = data.length, padding = 0): Uint8Array {
  const head = vfio_user_mig_data.encode({ argsz: HEAD + size, size });
  return Buffer.concat([head, data, new Uint8Array(padding)]);
}

describe('migration data of a server', () => {
  it('are received where they are read to, also by a read that was begun', () => {
    const { session, peer, link, close } = saving();
    const [one, two] = [new Fenced(), new Fenced()];
    const [first, second, last] = [noise(SIZE, 1), noise(SIZE, 2), noise(7, 3)];
    peer.send(replyTo(0), dataReply(first));
    expect(session.read(one.place)).toBe(SIZE);
    one.check(first);
    session.beginRead?.(two.place);
    session.beginRead?.(one.place); // it has begun
    peer.send(replyTo(1), dataReply(second));
    while (!link.attend());
    one.check(first);
    two.check(second);
    expect(session.read(two.place)).toBe(SIZE);
    two.check(second);
    one.all.fill(0x5a);
    session.beginRead?.(one.place);
    peer.send(replyTo(2), dataReply(last, 7, SIZE - 7)); // as long as was asked for, with zeros behind the data
    expect(session.read(one.place)).toBe(7);
    expect(one.place.subarray(0, 7)).toBeBytes(last);
    session.beginRead?.(two.place);
    expect(session.read(two.place), 'less than was asked for was the end').toBe(0);
    two.check(second);
    close();
  });

  it('that were begun somewhere are read anywhere, in any pieces', () => {
    const { session, peer, close } = saving();
    const fenced = new Fenced();
    const [first, second, third] = [noise(SIZE, 1), noise(SIZE, 2), noise(SIZE, 3)];
    const elsewhere = new Uint8Array(SIZE);
    peer.send(replyTo(0), dataReply(first));
    expect(session.read(elsewhere)).toBe(SIZE);
    expect(elsewhere).toBeBytes(first);
    session.beginRead?.(fenced.place);
    peer.send(replyTo(1), dataReply(second));
    expect(session.read(elsewhere.subarray(0, 1))).toBe(1);
    session.beginRead?.(fenced.place); // nothing is asked for before all was read
    expect(session.read(elsewhere.subarray(1, 20_000))).toBe(19_999);
    expect(session.read(elsewhere.subarray(20_000))).toBe(SIZE - 20_000);
    expect(elsewhere).toBeBytes(second);
    session.beginRead?.(); // anywhere
    peer.send(replyTo(2), dataReply(third));
    expect(session.read(elsewhere.subarray(0, 10))).toBe(10);
    expect(session.read(elsewhere.subarray(10))).toBe(SIZE - 10);
    expect(elsewhere).toBeBytes(third);
    fenced.check(second);
    close();
  });

  it('are asked for in the messages that the server takes', () => {
    const { session, peer, close } = saving(1000);
    const into = new Uint8Array(2500);
    const data = noise(2500, 1);
    peer.send(replyTo(0), dataReply(data.subarray(0, 1000)));
    peer.send(replyTo(1), dataReply(data.subarray(1000, 2000)));
    peer.send(replyTo(2), dataReply(data.subarray(2000)));
    for (let done = 0; done < into.length;) {
      session.beginRead?.(into.subarray(done));
      done += session.read(into.subarray(done));
    }
    expect(into).toBeBytes(data);
    const sizes = [1, 2, 3].map(() => vfio_user_mig_data.decode(peer.receive()?.body ?? NOTHING).size);
    expect(sizes).toEqual([1000, 1000, 500]);
    close();
  });

  it.each([
    ['more than was asked for', dataReply(noise(SIZE + 1, 9))],
    ['more than the message has', dataReply(noise(100, 9), 101)],
    ['more than was asked for, in fewer bytes', dataReply(noise(100, 9), SIZE + 1)],
    ['2^32 - 1 bytes', dataReply(noise(SIZE, 9), 2 ** 32 - 1)],
    ['nothing at all', NOTHING],
  ])('that are said to be %s are refused, begun or not, and what is read meanwhile stays', (_what, lie) => {
    for (const isBegun of [false, true]) {
      const { session, peer, close } = saving();
      const [one, two] = [new Fenced(), new Fenced()];
      const first = noise(SIZE, 1);
      peer.send(replyTo(0), dataReply(first));
      expect(session.read(one.place)).toBe(SIZE);
      if (isBegun) session.beginRead?.(two.place);
      peer.send(replyTo(1), lie);
      expect(outcome(() => session.read(two.place))).toBe('EIO');
      one.check(first);
      expect(two.all.subarray(0, 100), 'before the place').toBeBytes(new Uint8Array(100).fill(0x5a));
      expect(two.all.subarray(-100), 'behind it').toBeBytes(new Uint8Array(100).fill(0x5a));
      // the next reply is read as it is
      peer.send(replyTo(2), dataReply(first.subarray(0, 10)));
      expect(session.read(two.place)).toBe(10);
      close();
    }
  });

  it('that a server has refused are asked for again', () => {
    const { session, peer, close } = saving();
    const fenced = new Fenced();
    peer.send(replyTo(0), dataReply(noise(SIZE, 1)));
    session.read(fenced.place);
    session.beginRead?.(fenced.place);
    peer.send(replyTo(1, { errno: 'EAGAIN' }), NOTHING);
    expect(outcome(() => session.read(fenced.place))).toBe('EAGAIN');
    peer.send(replyTo(2), dataReply(noise(5, 2)));
    expect(session.read(fenced.place)).toBe(5);
    expect(fenced.place.subarray(0, 5)).toBeBytes(noise(5, 2));
    close();
  });

  it('are not asked for in advance before the first read, or once the session has ended', () => {
    const { session, peer, close } = saving();
    session.beginRead?.();
    expect(peer.receive()).toBeUndefined();
    session.close();
    session.beginRead?.(new Uint8Array(10));
    expect(peer.receive()).toBeUndefined();
    close();
  });
});
