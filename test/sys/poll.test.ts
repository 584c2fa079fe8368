import { writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { POLLIN, POLLNVAL, POLLOUT } from '../../src/abi/fcntl.ts';
import { receivePieces, sendPieces } from '../../src/sys/message-socket.ts';
import { PollSet } from '../../src/sys/poll.ts';
import { SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { noise } from '../support/bytes.ts';

describe('a set of descriptors', () => {
  it('tells of each place what happened there, and nothing of those that are not watched', () => {
    const [here, there] = socketPair(SOCK_STREAM);
    const set = new PollSet(4);
    const watch = (): number[] => {
      set.set(0, here.number, POLLIN);
      set.set(1, -1, POLLIN | POLLOUT);
      set.set(2, there.number, POLLIN | POLLOUT);
      set.set(3, 2 ** 30, POLLIN);
      expect(set.wait(4)).toBe(true);
      return [0, 1, 2, 3].map((place) => set.events(place));
    };
    expect(watch()).toEqual([0, 0, POLLOUT, POLLNVAL]);
    writeSync(there.number, 'x');
    expect(watch()).toEqual([POLLIN, 0, POLLOUT, POLLNVAL]);
    expect(() => set.set(4, here.number, POLLIN)).toThrow(RangeError);
    here.close();
    there.close();
  });

  it.each([0, -1, -1e9, 0.25, 1.5])('waits %d ms for what does not happen', (milliseconds) => {
    const [here, there] = socketPair(SOCK_STREAM);
    const set = new PollSet(1);
    set.set(0, here.number, POLLIN);
    const begin = performance.now();
    expect(set.wait(1, milliseconds)).toBe(false);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(Math.max(0, milliseconds));
    here.close();
    there.close();
  });

  it.each([2 ** 31 * 1000, 2 ** 45, Number.MAX_SAFE_INTEGER])(
    'does not wait for %d ms if there is something',
    (long) => {
      const [here, there] = socketPair(SOCK_STREAM);
      const set = new PollSet(1);
      set.set(0, here.number, POLLOUT);
      expect(set.wait(1, long)).toBe(true);
      here.close();
      there.close();
    },
  );
});

describe('bytes in pieces', () => {
  it('are sent from several places and received in several, as many as there is room for', () => {
    const [here, there] = socketPair(SOCK_STREAM);
    const bytes = noise(1000, 1);
    const sent = sendPieces(here.number, [bytes.subarray(0, 10), bytes.subarray(10, 11), bytes.subarray(11)], []);
    expect(sent).toBe(1000);
    const into = new Uint8Array(1000);
    const received = receivePieces(there.number, [
      into.subarray(0, 500),
      into.subarray(500, 501),
      into.subarray(501, 900),
    ]);
    expect(received).toMatchObject({ length: 900, fds: [], isCut: false });
    expect(receivePieces(there.number, [into.subarray(900)])?.length).toBe(100);
    expect(into).toBeBytes(bytes);
    expect(receivePieces(there.number, [into])).toBeUndefined();
    const four = [into, into, into, into];
    expect(sendPieces(here.number, four, [])).toBeLessThan(0);
    expect(() => receivePieces(there.number, four)).toThrow(RangeError);
    here.close();
    there.close();
  });
});
