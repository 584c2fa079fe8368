import { describe, expect, test } from 'vitest';
import { ShimError } from '../../src/error.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { begun, drained, inSession, stateOf, v2Sim } from '../support/sims.ts';

/* drivers/vfio/pci/xe/main.c, drivers/gpu/drm/xe/xe_sriov_packet.c, xe_sriov_pf_migration.c; Linux 7.1. */

const HEADER = 24;
const DESCRIPTOR = 16;
const DATA = 16 * 1024;
const SIZE = 40_000;
const spec = `xe,size=${SIZE}`;

interface Packet {
  readonly version: number;
  readonly type: number;
  readonly tile: number;
  readonly gt: number;
  readonly offset: number;
  readonly data: Uint8Array;
}

function encode(packet: Partial<Packet>): Uint8Array {
  const { version = 1, type = 6, tile = 0, gt = 0, offset = 0, data = new Uint8Array(0) } = packet;
  const bytes = new Uint8Array(HEADER + data.length);
  const view = new DataView(bytes.buffer);
  bytes.set([version, type, tile, gt]);
  view.setBigUint64(8, BigInt(offset), true);
  view.setBigUint64(16, BigInt(data.length), true);
  bytes.set(data, HEADER);
  return bytes;
}

function packetsIn(stream: Uint8Array): Packet[] {
  const packets: Packet[] = [];
  for (let at = 0; at < stream.length;) {
    const view = new DataView(stream.buffer, stream.byteOffset + at);
    const [version = 0, type = 0, tile = 0, gt = 0] = stream.subarray(at, at + 4);
    const size = Number(view.getBigUint64(16, true));
    const data = stream.subarray(at + HEADER, at + HEADER + size);
    packets.push({ version, type, tile, gt, offset: Number(view.getBigUint64(8, true)), data });
    at += HEADER + size;
  }
  return packets;
}

describe('sim xe saving', () => {
  test('gives a descriptor, the memory in packets, and a trailer; MIG_DATA_SIZE is all of it', () => {
    const { device, bar, session } = inSession(`${spec},seed=3`, V2.STOP_COPY);
    const stream = drained(session, 7000);
    expect(device.stopCopyLength()).toBe(stream.length);
    const packets = packetsIn(stream);
    expect(packets.map(({ type, offset, data }) => [type, offset, data.length])).toEqual([
      [1, 0, DESCRIPTOR],
      [6, 0, DATA],
      [6, DATA, DATA],
      [6, 2 * DATA, SIZE - 2 * DATA],
      [2, 0, 0],
    ]);
    expect(packets.every(({ version, tile, gt }) => version === 1 && tile === 0 && gt === 0)).toBe(true);
    expect(join(packets.slice(1, -1).map(({ data }) => data))).toBeBytes(bar);
    expect(outcome(() => session.precopyInfo())).toBe('ENOTTY');
  });

  test('gives the same bytes however it is read', () => {
    for (const block of [1, 23, 24, 25, DATA, DATA + HEADER, 100_000]) {
      if (block === 1)
        expect(drained(inSession('xe,size=100,seed=3', V2.STOP_COPY).session, 1)).toBeBytes(
          stateOf('xe,size=100,seed=3'),
        );
      else
        expect(drained(inSession(`${spec},seed=3`, V2.STOP_COPY).session, block)).toBeBytes(stateOf(`${spec},seed=3`));
    }
  });

  test.each([DATA, 2 * DATA, 1])('divides %i bytes of memory without an empty packet', (size) => {
    const packets = packetsIn(stateOf(`xe,size=${size}`)).slice(1, -1);
    expect(packets.map(({ data }) => data.length)).toEqual(
      size === 1 ? [1] : Array.from({ length: size / DATA }, () => DATA),
    );
  });

  test('says "not yet" for each packet that a read needs, and of when it will be, nothing', () => {
    const { session } = inSession(`${spec},seed=3,unready=2`, V2.STOP_COPY);
    const head = new Uint8Array(HEADER + DESCRIPTOR);
    expect(session.read(head)).toBe(head.length); // the descriptor is there
    const rest = new Uint8Array(100_000);
    const waits: (number | ShimError)[] = [];
    while (typeof waits.at(-1) !== 'number') {
      try {
        waits.push(session.read(rest));
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        waits.push(error);
      }
    }
    expect(waits.pop()).toBe(SIZE + 4 * HEADER);
    expect(waits).toHaveLength(3 * 2);
    for (const wait of waits) expect(wait).toMatchObject({ code: 'ERR_NO_DATA_YET', readiness: undefined });
    expect(join([head, rest.subarray(0, SIZE + 4 * HEADER)])).toBeBytes(stateOf(`${spec},seed=3`));
  });

  test('fails every read once one has failed, whose bytes are lost; not after EINTR', () => {
    const interrupted = inSession(`${spec},seed=3,fault=read@1:EINTR`, V2.STOP_COPY);
    expect(outcome(() => interrupted.session.read(new Uint8Array(100)))).toBe('EINTR');
    expect(drained(interrupted.session)).toBeBytes(stateOf(`${spec},seed=3`));
    const { device, session } = inSession(`${spec},seed=3,fault=read@2:EREMOTEIO`, V2.STOP_COPY);
    expect(session.read(new Uint8Array(100))).toBe(100);
    for (const _ of [1, 2, 3]) expect(outcome(() => session.read(new Uint8Array(100)))).toBe('EREMOTEIO');
    device.setState(V2.STOP);
    expect(drained(begun(device, V2.STOP_COPY))).toBeBytes(stateOf(`${spec},seed=3`));
  });

  test('cannot leave STOP_COPY before the device has made its data: EIO, and the data fd is gone', () => {
    const large = `xe,size=${10 * DATA},seed=3`;
    const { device, session } = inSession(large, V2.STOP_COPY);
    for (const target of [V2.STOP, V2.RUNNING]) expect(outcome(() => device.setState(target))).toBe('EIO');
    expect([device.getState(), device.openSession()]).toEqual([V2.STOP_COPY, undefined]);
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENODEV');
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
    const again = begun(device, V2.STOP_COPY);
    again.read(new Uint8Array(5 * (HEADER + DATA) + HEADER + DESCRIPTOR));
    expect(outcome(() => device.setState(V2.STOP))).toBe('OK'); // the other five are in the ring
  });

  test('shows a MIG_DATA_SIZE that has failed as an impossible size', () => {
    expect(v2Sim(`${spec},nosize=1`).device.stopCopyLength()).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('is stopped by a request that the state machine refuses, until a reset', () => {
    const { device } = v2Sim(spec);
    expect(outcome(() => device.setState(V2.PRE_COPY))).toBe('EINVAL');
    expect(device.getState()).toBe(V2.RUNNING);
    for (const target of [V2.STOP, V2.STOP_COPY, V2.RESUMING])
      expect(outcome(() => device.setState(target))).toBe('EPERM');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK'); // which it is in
    device.reset();
    expect(outcome(() => device.setState(V2.STOP))).toBe('OK');
  });
});

describe('sim xe resuming', () => {
  const state = stateOf(`${spec},seed=3`);
  const descriptor = state.subarray(0, HEADER + DESCRIPTOR);
  const trailer = encode({ type: 2 });

  test('loads what it saved, however it is cut', () => {
    for (const sizes of [[23, 1], [24], [25], [DATA], [100_000]]) {
      const { device, bar, session } = inSession(spec, V2.RESUMING);
      for (const piece of cut(state, sizes)) expect(session.write(piece)).toBe(piece.length);
      device.setState(V2.RUNNING);
      expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
    }
  });

  test.each<[string, string, Uint8Array]>([
    ['the descriptor of another device', 'ENODEV', stateOf(`${spec},compat=2`).subarray(0, HEADER + DESCRIPTOR)],
    ['a descriptor that ends in a key', 'EINVAL', encode({ type: 1, data: new Uint8Array([9, 0, 1, 0]) })],
    ['a descriptor of odd length', 'EINVAL', encode({ type: 1, data: new Uint8Array(5) })],
    ['another version', 'EINVAL', encode({ version: 2, type: 2 })],
    ['no type', 'EINVAL', encode({ type: 0 })],
    ['another tile', 'EINVAL', encode({ tile: 1, data: noise(4) })],
    ['another GT', 'EINVAL', encode({ gt: 1, data: noise(4) })],
    ['a trailer with data', 'EINVAL', encode({ type: 2, data: noise(4) })],
    ['a packet that is too large', 'ENOMEM', encode({ data: noise(DATA + 1) })],
  ])('refuses %s with %s in its write, and takes what comes after it', (_, errno, bad) => {
    const { device, bar, session } = inSession(spec, V2.RESUMING);
    expect(outcome(() => session.write(bad))).toBe(errno);
    expect(session.write(state.subarray(descriptor.length))).toBe(state.length - descriptor.length);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });

  test('passes over keys that it does not know', () => {
    const { session } = inSession(spec, V2.RESUMING);
    expect(outcome(() => session.write(encode({ type: 1, data: new Uint8Array([1, 0, 7, 7, 9, 9, 9, 9]) })))).toBe(
      'OK',
    );
  });

  test.each<[string, string, Uint8Array]>([
    ['without a trailer', 'ETIMEDOUT', state.subarray(0, -HEADER)],
    ['of nothing', 'ETIMEDOUT', new Uint8Array(0)],
    ['with data beyond the memory', 'EIO', join([descriptor, encode({ offset: SIZE - 3, data: noise(4) }), trailer])],
    ['with an offset near 2^64', 'EIO', join([descriptor, hugeOffset(), trailer])],
    ['of a kind that it has not', 'EIO', join([descriptor, encode({ type: 3, data: noise(4) }), trailer])],
  ])('does not leave RESUMING with a state %s: %s, and the data fd is gone', (_, errno, bad) => {
    const { device, session } = inSession(spec, V2.RESUMING);
    session.write(bad);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe(errno);
    expect([device.getState(), device.openSession()]).toEqual([V2.RESUMING, undefined]);
    expect(outcome(() => session.write(trailer))).toBe('ENODEV');
    expect(outcome(() => device.setState(V2.RUNNING))).not.toBe('OK');
    device.reset();
    begun(device, V2.RESUMING).write(state);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
  });

  function hugeOffset(): Uint8Array {
    const packet = encode({ data: noise(4) });
    new DataView(packet.buffer).setBigUint64(8, 2n ** 64n - 2n, true);
    return packet;
  }

  test('goes on from the memory that another object has left, in the middle of a packet', () => {
    const first = inSession(spec, V2.RESUMING);
    first.session.write(state.subarray(0, 20_000));
    const second = v2Sim(spec, first.memory);
    second.device.openSession()?.write(state.subarray(20_000));
    second.device.setState(V2.RUNNING);
    expect(second.bar).toBeBytes(v2Sim(`${spec},seed=3`).bar);
  });
});
