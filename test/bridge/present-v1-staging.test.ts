import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { oldVmm } from '../support/presented.ts';
import { readRegister } from '../support/v1-user.ts';
import type { Answer } from '../support/tape-v2.ts';

const [first, second, third] = [noise(3000, 1), noise(8000, 2), noise(500, 3)];

describe('presentV1 staged bytes', () => {
  test('shown in pre-copy: consumed by the first pending_bytes after the change to stop-and-copy', () => {
    const { user, spy } = oldVmm({ answers: [first, 0], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    const received = [user.buffer()];
    user.setState(V1.STOP_COPY);
    received.push(...user.drain());
    expect(received.map((buffer) => buffer.length)).toEqual([3000, 500]);
    expect(received).toBeBytes(spy.bytes('out'));
    expect(received).toBeBytes([first, third]);
  });

  test('not shown in pre-copy: still there in stop-and-copy, before what follows', () => {
    const { user, device } = oldVmm({ answers: [first], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    user.buffer(); // 3000 bytes shown
    user.pending(); // and consumed
    user.setState(V1.STOP_COPY);
    user.pending(); // reads ahead: 500 bytes staged, not shown
    user.setState(V1.STOP_COPY);
    expect(user.pending()).toBe(500);
    expect(join(user.drain())).toEqual(third);
    expect(readRegister(device, 'pending_bytes')).toBe(0);
  });

  test('shown and looked at again after the change of state: the same buffer', () => {
    const { user } = oldVmm({ answers: [first], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    const before = user.buffer();
    user.setState(V1.STOP_COPY);
    expect(user.buffer()).toBeBytes(before);
    expect(user.pending()).toBe(500);
    expect(user.buffer()).toBeBytes(third);
  });

  test('staged and never shown before the change: shown afterwards, once', () => {
    const error = failure('EIO');
    const { user, spy } = oldVmm({ answers: [first, error, second], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    // data_offset stages; reading only data_size afterwards does not show anything new
    expect(user.offset()).toBe(DATA_OFFSET);
    expect(user.size()).toBe(3000);
    user.setState(V1.STOP_COPY);
    const received = [user.buffer()];
    expect(outcome(() => user.pending())).toBe('EIO');
    received.push(...user.drain());
    expect(received).toBeBytes([first, second, third]);
    expect(received).toBeBytes(spy.bytes('out'));
  });

  test.each([
    ['refused', failure('EBUSY')],
    ['not yet answered', notYet()],
  ])('survive a change of state that is %s', (_, error) => {
    const { user, tape } = oldVmm({ answers: [first], stopAnswers: [third] });
    user.setState(3);
    expect(user.buffer()).toBeBytes(first);
    tape.failingHops.push({ hop: V2.STOP_COPY, error });
    expect(outcome(() => user.setState(2))).toBe(error.errno);
    expect(user.buffer()).toBeBytes(first);
    user.setState(2);
    expect(user.drain()).toBeBytes(third);
  });

  test('survive a write of the same state', () => {
    const { user } = oldVmm({ answers: [first, 0, second, 0], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    const received = [user.buffer()];
    user.setState(V1.PRE_COPY);
    expect(user.buffer()).toBeBytes(first);
    user.pending();
    received.push(user.buffer());
    user.setState(V1.STOP_COPY);
    user.setState(V1.STOP_COPY);
    received.push(...user.drain());
    expect(received).toBeBytes([first, second, third]);
  });

  test('are forgotten with their session: one entered again is a new stream from byte 0', () => {
    const { user, tape, spy } = oldVmm({ answers: [first, 0] });
    user.setState(V1.PRE_COPY);
    user.buffer();
    user.setState(V1.RUNNING);
    tape.answers.push(second, 0);
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(0);
    expect(user.buffer()).toBeBytes(second);
    expect(spy.bytes('out')).toBeBytes(second);
  });

  test('fill no more than bufferSize', () => {
    const { user } = oldVmm({ stopAnswers: [first] }, { bufferSize: 1200 });
    user.setState(2);
    const received = user.drain();
    expect(received.map((buffer) => buffer.length)).toEqual([1200, 1200, 600]);
    expect(received).toBeBytes(first);
  });

  test('grow in stop-and-copy, up to half the section, as long as the driver fills them', () => {
    const MiB = 2 ** 20;
    const stream = noise(31 * MiB + 123, 5);
    const { user } = oldVmm(
      { answers: [stream.subarray(0, 5 * MiB), 0], stopAnswers: [stream.subarray(5 * MiB)] },
      { dataSection: new Uint8Array(16 * MiB) },
    );
    user.setState(V1.PRE_COPY);
    const received: Uint8Array[] = [];
    for (let n = 0; n < 3; n += 1) {
      received.push(user.buffer());
      user.pending();
    }
    expect(received.map((buffer) => buffer.length / MiB)).toEqual([2, 2, 1]);
    user.setState(V1.STOP_COPY);
    received.push(...user.drain());
    expect(received.slice(3).map((buffer) => buffer.length)).toEqual([2, 4, 8, 8, 4 + 123 / MiB].map((n) => n * MiB));
    expect(received).toBeBytes(stream);
  });

  test('grow to 16 MiB at most', () => {
    const MiB = 2 ** 20;
    const stream = noise(47 * MiB, 5);
    const { user } = oldVmm({ stopAnswers: [stream] }, { dataSection: new Uint8Array(64 * MiB) });
    user.setState(V1.STOP_COPY);
    const received = user.drain();
    expect(received.map((buffer) => buffer.length / MiB)).toEqual([2, 4, 8, 16, 16, 1]);
    expect(received).toBeBytes(stream);
  });

  test('begin anew with each session', () => {
    const MiB = 2 ** 20;
    const { user, tape } = oldVmm({ stopAnswers: [noise(7 * MiB, 1)] }, { dataSection: new Uint8Array(16 * MiB) });
    user.setState(V1.STOP_COPY);
    expect(user.drain().map((buffer) => buffer.length / MiB)).toEqual([2, 4, 1]);
    user.setState(V1.RUNNING);
    tape.stopAnswers.push(noise(3 * MiB, 2));
    user.setState(V1.STOP_COPY);
    expect(user.drain().map((buffer) => buffer.length / MiB)).toEqual([2, 1]);
  });

  test('are the mapped data section itself', () => {
    const section = new Uint8Array(8192);
    const { user, device } = oldVmm({ stopAnswers: [first] }, { dataSection: section });
    user.setState(V1.STOP_COPY);
    user.pending();
    expect(device.mapped).toBe(section);
    expect(section.subarray(0, 3000)).toEqual(first);
  });

  test('fill the data section from many short reads, and no more than it', () => {
    const answers = Array.from({ length: 40 }, (_, n) => noise(777, n + 1));
    const { user, spy } = oldVmm({ stopAnswers: [...answers] });
    user.setState(V1.STOP_COPY);
    const received = user.drain();
    expect(received.map((buffer) => buffer.length)).toEqual([8192, 8192, 8192, 40 * 777 - 3 * 8192]);
    expect(received).toBeBytes(answers);
    expect(
      spy.log.filter((line) => line.startsWith('read')).every((line) => Number(line.split(/[ :]+/)[1]) <= 8192),
    ).toBe(true);
  });
});

describe('presentV1 register reads', () => {
  test('pending_bytes has no side effect while nothing is shown', () => {
    const { user, spy } = oldVmm({ answers: [first, 0], precopyInfo: { initialBytes: 3000, dirtyBytes: 7 } });
    user.setState(V1.PRE_COPY);
    expect([user.pending(), user.pending(), user.pending()]).toEqual([3007, 3007, 3007]);
    expect(spy.log.filter((line) => line.startsWith('read'))).toEqual([]);
  });

  test('data_offset and data_size give the same buffer on repetition', () => {
    const { user } = oldVmm({ stopAnswers: [first] });
    user.setState(V1.STOP_COPY);
    for (let look = 0; look < 3; look += 1) {
      expect([user.offset(), user.size()]).toEqual([DATA_OFFSET, 3000]);
      expect(user.buffer()).toBeBytes(first);
    }
  });

  test('data_offset reads ahead before it returns: no pending_bytes needed first', () => {
    const { user } = oldVmm({ stopAnswers: [first] });
    user.setState(V1.STOP_COPY);
    expect(user.buffer()).toEqual(first);
  });

  test.each([0, 1, 2, 3, 4])('data_offset is never 0 and within the region: state %i', (state) => {
    const { user } = oldVmm();
    user.setState(state);
    expect(user.offset()).toBe(DATA_OFFSET);
  });

  test.each([0, 1, 4])('nothing is pending in state %i', (state) => {
    const { user } = oldVmm({ answers: [first], stopAnswers: [third], stopCopyLength: 99 });
    user.setState(state);
    expect([user.pending(), user.size()]).toEqual([0, 0]);
  });
});

describe('presentV1 no data now', () => {
  test.each<[string, Answer]>([
    ['0', 0],
    ['ENOMSG', failure('ENOMSG', 'ERR_NO_DATA_NOW')],
  ])('%s in pre-copy is a data_size of 0, not the end: later data and stop-copy data follow', (_, none) => {
    const { user, spy } = oldVmm({ answers: [none, none, first, none, second, none], stopAnswers: [third] });
    user.setState(V1.PRE_COPY);
    expect(user.buffer()).toHaveLength(0);
    expect(user.buffer()).toHaveLength(0);
    const received = [user.buffer()];
    user.pending();
    received.push(user.buffer());
    user.setState(V1.STOP_COPY);
    received.push(...user.drain());
    expect(received).toBeBytes([first, second, third]);
    expect(received).toBeBytes(spy.bytes('out'));
  });

  test('0 in stop-and-copy is the end: pending_bytes is 0 and the data fd is not read again', () => {
    const { user, spy } = oldVmm({ stopAnswers: [first, 0, second], stopCopyLength: 99_999 });
    user.setState(V1.STOP_COPY);
    expect(user.drain()).toEqual([first]);
    const reads = spy.log.length;
    expect([user.pending(), user.pending(), user.buffer().length, user.pending()]).toEqual([0, 0, 0, 0]);
    expect(spy.log.length).toBe(reads);
  });

  test('ENOMSG in stop-and-copy is an error like any other', () => {
    const { user } = oldVmm({ stopAnswers: [failure('ENOMSG')] });
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.pending())).toBe('ENOMSG');
  });
});

describe('presentV1 pending_bytes in pre-copy', () => {
  test('is staged + initial + dirty', () => {
    const { user, tape } = oldVmm({ answers: [first, 0], precopyInfo: { initialBytes: 3000, dirtyBytes: 50 } });
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(3050);
    tape.info = { initialBytes: 0, dirtyBytes: 50 };
    user.buffer();
    // consumed now, since it was shown
    expect(user.pending()).toBe(50);
    tape.info = { initialBytes: 0, dirtyBytes: 0 };
    expect(user.pending()).toBe(0);
  });

  test('adds the cost of stop-and-copy where that is asked for', () => {
    const { user, tape } = oldVmm(
      { precopyInfo: { initialBytes: 10, dirtyBytes: 5 }, stopCopyLength: 1000 },
      { pendingIncludesStopCopy: true },
    );
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(1000); // MIG_DATA_SIZE is of all that is to come, pre-copy included
    tape.info = { initialBytes: 900, dirtyBytes: 300 };
    expect(user.pending()).toBe(1200);
    tape.info = { initialBytes: 10, dirtyBytes: 5 };
    tape.length = undefined; // a driver without MIG_DATA_SIZE
    expect(user.pending()).toBe(15);
  });

  test('stays a count that a length can be, whatever the driver claims', () => {
    const most = Number.MAX_SAFE_INTEGER;
    for (const pendingIncludesStopCopy of [false, true]) {
      const { user } = oldVmm(
        { answers: [first, 0], precopyInfo: { initialBytes: most, dirtyBytes: most }, stopCopyLength: most },
        { pendingIncludesStopCopy },
      );
      user.setState(V1.PRE_COPY);
      expect(user.pending()).toBeLessThanOrEqual(most);
      expect(user.pending()).toBeGreaterThan(2 ** 50);
    }
  });
});

describe('presentV1 pending_bytes in stop-and-copy', () => {
  test.each([
    ['exactly', 8500],
    ['too little', 100],
    ['too much', 2 ** 40],
    ['nothing', undefined],
  ])('is not 0 while a byte is left, and 0 at the end, where the driver promises %s', (_, stopCopyLength) => {
    const { user } = oldVmm({
      stopAnswers: [join([second, third])],
      ...(stopCopyLength === undefined ? {} : { stopCopyLength }),
    });
    user.setState(V1.STOP_COPY);
    let left = 8500;
    for (const size of [8192, 308]) {
      const pending = user.pending();
      expect(pending).toBeGreaterThanOrEqual(size);
      expect(pending).toBeGreaterThanOrEqual(Math.min(left, stopCopyLength ?? 0));
      expect(user.buffer()).toHaveLength(size);
      left -= size;
    }
    expect(user.pending()).toBe(0);
  });

  test('is the whole promise at first, and counts down as buffers are consumed', () => {
    const { user } = oldVmm({ stopAnswers: [noise(8192, 4), noise(8192, 5), third], stopCopyLength: 2 * 8192 + 500 });
    user.setState(V1.STOP_COPY);
    const seen: number[] = [];
    for (let pending = user.pending(); pending > 0; pending = user.pending()) {
      seen.push(pending);
      user.buffer();
    }
    expect(seen).toEqual([16_884, 8692, 500]);
  });

  test('counts from the promise of when stop-and-copy began, which is not asked for again, nor before', () => {
    const { user, tape, spy } = oldVmm({ stopAnswers: [noise(8192, 4), third], stopCopyLength: 8692 });
    const asked: string[] = [];
    spy.options = { before: (call) => asked.push(call) };
    for (const state of [3, 1, 4, 0]) user.setState(state);
    expect(new Set(asked)).toEqual(new Set(['setState']));
    user.setState(2);
    user.pending();
    user.buffer();
    tape.length = 500; // what is left, says a driver that counts down
    user.setState(2);
    expect(user.pending()).toBe(500);
    expect(asked.filter((call) => call === 'stopCopyLength')).toHaveLength(1);
  });

  test('is 0 at once for a device without state', () => {
    const { user } = oldVmm({ stopCopyLength: 4096 });
    user.setState(V1.STOP_COPY);
    expect(user.pending()).toBe(0);
  });

  test('goes on below a promise that pre-copy has used up', () => {
    const { user, tape } = oldVmm({ answers: [first], stopAnswers: [third], stopCopyLength: 3100 });
    user.setState(V1.PRE_COPY);
    user.buffer();
    user.setState(V1.STOP_COPY);
    expect(tape.state).toBe(V2.STOP_COPY);
    expect(user.pending()).toBe(500);
  });
});
