import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { begun, drained, inSession, stateOf, v2Sim } from '../support/sims.ts';

/* drivers/vfio/pci/virtio/migrate.c and common.h, Linux 7.1. */

const HEADER = 16;
const PARTS = 16;
const SIZE = 5000;
const RECORD = HEADER + PARTS + SIZE;
const spec = `virtio,size=${SIZE}`;

function record(size: bigint, flags: number, tag: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const header = new Uint8Array(HEADER);
  const view = new DataView(header.buffer);
  view.setBigUint64(0, size, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, tag, true);
  return join([header, payload]);
}

/** The memories that a stream carries, one for each record. */
function memoriesIn(stream: Uint8Array): Uint8Array[] {
  expect(stream.length % RECORD).toBe(0);
  return cut(stream, [RECORD]).map((bytes) => {
    expect(bytes.subarray(0, HEADER)).toBeBytes(record(BigInt(PARTS + SIZE), 0, 0));
    return bytes.subarray(HEADER + PARTS);
  });
}

describe('sim virtio saving', () => {
  test('gives the whole state once without pre-copy, and MIG_DATA_SIZE is less', () => {
    const { device, bar, session } = inSession(`${spec},seed=3`, V2.STOP_COPY);
    const stream = drained(session, 999);
    expect(memoriesIn(stream)).toEqual([bar]);
    expect(device.stopCopyLength()).toBe(stream.length - HEADER);
    expect(session.read(new Uint8Array(10))).toBe(0);
  });

  test('gives it on entry into PRE_COPY, then ENOMSG, and again in STOP_COPY, each as it was then', () => {
    const { device, bar, session } = inSession(`${spec},seed=3`, V2.PRE_COPY);
    const before = bar.slice();
    bar.set(noise(SIZE, 4));
    const first = drained(session, 1000);
    expect(memoriesIn(first)).toEqual([before]);
    expect(thrownBy(() => session.read(new Uint8Array(1)))).toMatchObject({ code: 'ERR_NO_DATA_NOW', errno: 'ENOMSG' });
    expect(session.read(new Uint8Array(0))).toBe(0);
    bar.set(noise(SIZE, 5));
    device.setState(V2.STOP_COPY);
    const after = bar.slice();
    bar.fill(0);
    expect(memoriesIn(drained(session))).toEqual([after]);
  });

  test('keeps what pre-copy has left unread in front of the last record', () => {
    const { device, bar, session } = inSession(`${spec},seed=3`, V2.PRE_COPY);
    const before = bar.slice();
    const piece = new Uint8Array(700);
    expect(session.read(piece)).toBe(700);
    bar.set(noise(SIZE, 5));
    device.setState(V2.STOP_COPY);
    expect(memoriesIn(join([piece, drained(session)]))).toEqual([before, bar]);
  });

  test('makes another record when precopy info finds that all was read', () => {
    const { bar, session } = inSession(`${spec},seed=3,ratelimit=1`, V2.PRE_COPY);
    expect(session.precopyInfo()).toEqual({ initialBytes: RECORD, dirtyBytes: 0 });
    session.read(new Uint8Array(100));
    expect(session.precopyInfo()).toEqual({ initialBytes: RECORD - 100, dirtyBytes: 0 });
    drained(session);
    bar.set(noise(SIZE, 6));
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: PARTS + SIZE });
    const snapshot = bar.slice();
    bar.fill(0);
    session.read(new Uint8Array(10));
    // what is unread, and what the device would have to say again
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: RECORD - 10 + PARTS + SIZE });
    expect(drained(session).subarray(HEADER + PARTS - 10)).toBeBytes(snapshot);
  });

  test('asks its device in one of so many calls: there is nothing in the others', () => {
    const { session } = inSession(`${spec},ratelimit=3`, V2.PRE_COPY);
    session.precopyInfo();
    drained(session);
    const dirty = Array.from({ length: 5 }, () => session.precopyInfo().dirtyBytes);
    expect(dirty).toEqual([0, 0, PARTS + SIZE, RECORD, RECORD]);
  });

  test('leaves precopy info to those who may have it', () => {
    const { device, session } = inSession(spec, V2.PRE_COPY);
    device.setState(V2.RUNNING);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
    const next = begun(device, V2.PRE_COPY);
    drained(next);
    expect(outcome(() => session.precopyInfo())).toBe('ENODEV');
    expect(next.precopyInfo().dirtyBytes).toBeGreaterThan(0); // the call before was not counted
  });

  test('goes on from the memory that another object has left, with what was unread as it was', () => {
    const first = inSession(`${spec},seed=3`, V2.PRE_COPY);
    const before = first.bar.slice();
    const piece = new Uint8Array(700);
    first.session.read(piece);
    first.bar.fill(0);
    const second = v2Sim(spec, first.memory);
    expect(memoriesIn(join([piece, drained(second.device.openSession())]))).toEqual([before]);
  });
});

describe('sim virtio resuming', () => {
  const state = stateOf(`${spec},seed=3`);

  test('loads each record within the write that completes it, however it is cut', () => {
    const later = stateOf(`${spec},seed=4`);
    for (const sizes of [[1, 15], [16], [17], [RECORD - 1, 1, RECORD], [2 * RECORD]]) {
      const { device, bar, session } = inSession(spec, V2.RESUMING);
      for (const piece of cut(join([state, later]), sizes)) expect(session.write(piece)).toBe(piece.length);
      expect(bar).toBeBytes(v2Sim(`${spec},seed=4`).bar);
      device.setState(V2.RUNNING);
    }
  });

  test('has nothing of a record before its last byte', () => {
    const { bar, session } = inSession(`${spec},seed=8`, V2.RESUMING);
    session.write(state.subarray(0, -1));
    expect(bar).toBeBytes(v2Sim(`${spec},seed=8`).bar);
    session.write(state.subarray(-1));
    expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });

  test.each([
    ['another compatibility number', 'EINVAL', stateOf(`${spec},compat=2`)],
    ['another size', 'EINVAL', stateOf('virtio,size=4000')],
    ['a record that is too long', 'EINVAL', record(9000n, 0, 0, noise(9000))],
    ['an empty record', 'EINVAL', record(0n, 0, 0)],
    ['an unknown tag', 'EOPNOTSUPP', record(8n, 0, 1, noise(8))],
    ['4 GiB', 'ENOMEM', record(2n ** 32n, 0, 0)],
    ['more than there are numbers', 'ENOMEM', record(2n ** 64n - 1n, 1, 7)],
  ])('refuses %s with %s, keeps the records before it, and takes no more; the exit says nothing', (_, errno, bad) => {
    const { device, bar, session } = inSession(spec, V2.RESUMING);
    expect(outcome(() => session.write(join([state, bad])))).toBe(errno);
    expect(outcome(() => session.write(state))).toBe('ENODEV');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });

  test('passes over an optional record', () => {
    const { bar, session } = inSession(spec, V2.RESUMING);
    const stream = join([record(9000n, 1, 5, noise(9000)), record(0n, 1, 5), state]);
    for (const piece of cut(stream, [1000])) expect(session.write(piece)).toBe(piece.length);
    expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });

  test.each([0, 10, 16, 3000])('lets the device run with %i bytes of a state', (length) => {
    const { device, bar, session } = inSession(`${spec},seed=8`, V2.RESUMING);
    session.write(state.subarray(0, length));
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar).toBeBytes(v2Sim(`${spec},seed=8`).bar);
  });

  test('begins each session with a record', () => {
    const { device, bar, session } = inSession(spec, V2.RESUMING);
    session.write(state.subarray(0, 3000));
    device.setState(V2.STOP);
    begun(device, V2.RESUMING).write(state);
    expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });
});
