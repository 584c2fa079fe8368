import { describe, expect, test } from 'vitest';
import { presentV1, presentV2 } from '../../src/bridge/index.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import { cut, hex, join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { failOnce } from '../support/fail-once.ts';
import { newVmm, readSome, readToEnd } from '../support/presented.ts';
import { v1Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const framed = { segmentation: 'framed' } as const;
const HEADER = 16;
const buffers = [noise(100, 1), noise(65_536, 2), noise(1, 3), noise(30_000, 4)];

/** The stream of a framed save, and as it was cut by reads of this size. */
function stream(block = 4096): Uint8Array {
  const { begin } = newVmm(new TapeV1({ stopCopy: [...buffers] }), framed);
  return join(readToEnd(begin(V2.STOP_COPY), block));
}

describe('presentV2 framed, saving', () => {
  test.each([1, 7, 15, 16, 17, 100, 116, 117, 1_000_000])(
    'puts a header before each buffer, read %i bytes at a time',
    (block) => {
      const expected = buffers.flatMap((buffer) => {
        const header = Buffer.from(hex('56534631 01000000 0000000000000000'));
        header.writeBigUInt64LE(BigInt(buffer.length), 8);
        return [header, buffer];
      });
      expect(stream(block)).toBeBytes(expected);
    },
  );

  test('a header that was cut survives the change to STOP_COPY', () => {
    for (let at = 1; at <= HEADER + 2; at += 1) {
      const { device, begin } = newVmm(new TapeV1({ preCopy: [...buffers] }), framed);
      const session = begin(V2.PRE_COPY);
      const pieces = [readSome(session, at)];
      device.setState(V2.STOP_COPY);
      pieces.push(...readToEnd(session, 1000));
      expect(pieces).toBeBytes(stream());
    }
  });
});

describe('presentV2 framed, carry', () => {
  test('holds a whole buffer of the size of the data section, in the memory that was given', () => {
    const carry = new Uint8Array(65_536);
    const { device, begin } = newVmm(new TapeV1({ preCopy: [noise(65_536)] }), { ...framed, carry });
    const session = begin(V2.PRE_COPY);
    readSome(session, 3);
    device.setState(V2.STOP_COPY);
    expect(carry).toBeBytes(noise(65_536));
    expect(join(readToEnd(session)).length).toBe(HEADER - 3 + 65_536);
  });
});

describe('presentV2 framed, resuming', () => {
  test.each([[1], [15], [16], [17, 1], [65_536], [1_000_000], [3, 100_000]])(
    'restores the buffers from pieces of %j',
    (...sizes) => {
      const { tape, device, begin } = newVmm(new TapeV1(), framed);
      const session = begin(V2.RESUMING);
      for (const piece of cut(stream(), sizes)) expect(session.write(piece)).toBe(piece.length);
      device.setState(V2.RUNNING);
      expect(tape.loaded).toBeBuffers(buffers);
    },
  );

  test('each buffer is handed over with its last byte, not later', () => {
    const { tape, begin } = newVmm(new TapeV1(), framed);
    const session = begin(V2.RESUMING);
    session.write(stream().subarray(0, HEADER + 99));
    expect(tape.loaded).toHaveLength(0);
    session.write(stream().subarray(HEADER + 99, HEADER + 100));
    expect(tape.loaded).toHaveLength(1);
  });

  test('a buffer larger than the data section goes in several transactions', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ section: 16_384 }), framed);
    begin(V2.RESUMING).write(stream());
    device.setState(V2.RUNNING);
    expect(tape.loaded.map((bytes) => bytes.length)).toEqual([100, 16_384, 16_384, 16_384, 16_384, 1, 16_384, 13_616]);
    expect(tape.loaded).toBeBytes(buffers);
  });

  test.each([1, HEADER - 1, HEADER, HEADER + 1, HEADER + 99, HEADER + 100 + 5])(
    'a stream that ends after %i bytes is refused when RESUMING is left, and can go on',
    (length) => {
      const { tape, device, begin } = newVmm(new TapeV1(), framed);
      const session = begin(V2.RESUMING);
      session.write(stream().subarray(0, length));
      expect(thrownBy(() => device.setState(V2.RUNNING))).toMatchObject({
        code: 'ERR_STREAM_TRUNCATED',
        errno: 'EINVAL',
      });
      expect([device.getState(), tape.state]).toEqual([V2.RESUMING, 4]);
      session.write(stream().subarray(length));
      device.setState(V2.RUNNING);
      expect(tape.loaded).toBeBytes(buffers);
    },
  );

  test('bytes that are no frame fail the write that completes the header', () => {
    const { tape, begin } = newVmm(new TapeV1(), framed);
    const session = begin(V2.RESUMING);
    expect(session.write(noise(HEADER - 1))).toBe(HEADER - 1);
    expect(outcome(() => session.write(noise(1)))).toBe('EINVAL');
    expect(tape.loaded).toEqual([]);
  });

  test('EAGAIN behind a header: the header counts as taken, and without one the write says so', () => {
    const { tape, spy, begin } = newVmm(new TapeV1(), framed);
    const session = begin(V2.RESUMING);
    const bytes = stream().subarray(0, HEADER + 100);
    failOnce(spy, 'data_offset', notYet());
    expect(session.write(bytes)).toBe(HEADER);
    failOnce(spy, 'data_offset', notYet());
    expect(outcome(() => session.write(bytes.subarray(HEADER)))).toBe('EAGAIN');
    expect(session.write(bytes.subarray(HEADER))).toBe(100);
    expect(tape.loaded).toBeBytes(buffers.slice(0, 1));
  });

  test('an error behind a header is the errno of the write', () => {
    const { spy, begin } = newVmm(new TapeV1(), framed);
    const session = begin(V2.RESUMING);
    failOnce(spy, 'data_offset', failure('EREMOTEIO'));
    expect(outcome(() => session.write(stream()))).toBe('EREMOTEIO');
  });

  test('EAGAIN of a transaction: nothing is lost or doubled', () => {
    const { tape, device, begin } = newVmm(new TapeV1(), framed);
    let calls = 0;
    tape.onLoad = () => {
      calls += 1;
      if (calls % 3 !== 0) throw notYet();
    };
    const session = begin(V2.RESUMING);
    for (const piece of cut(stream(), [200, 70_000])) {
      for (let at = 0; at < piece.length;) {
        const answer = outcome(() => {
          at += session.write(piece.subarray(at));
        });
        if (answer !== 'OK') expect(answer).toBe('EAGAIN');
      }
    }
    while (outcome(() => device.setState(V2.RUNNING)) === 'EAGAIN');
    expect(tape.loaded).toBeBuffers(buffers);
  });
});

describe('framed segmentation with a strict v1 driver', () => {
  const spec = 'vendor-v1,size=300K,section=64K';

  test.each([
    ['framed', 'OK'],
    ['raw', 'EINVAL'],
  ] as const)('%s: the destination answers %s', (segmentation, expected) => {
    const source = v1Sim(`${spec},seed=5,dirty=1`);
    const spy = new SpyV1(source.device);
    const pieces: Uint8Array[] = [];
    const save = new V2Save(presentV2(spy, { segmentation }), (piece) => pieces.push(piece.slice()));
    save.setup();
    for (let n = 0; n < 30; n += 1) save.iterate();
    save.stop();
    save.complete();

    const target = v1Sim(`${spec},strict=1`);
    const loads = new SpyV1(target.device);
    const restore = new V2Restore(presentV2(loads, { segmentation }));
    restore.setup();
    const result = outcome(() => {
      for (const piece of cut(join(pieces), [1000, 1, 90_000])) restore.load(piece);
      restore.complete();
    });
    expect(result).toBe(expected);
    if (expected !== 'OK') return;
    expect(target.bar).toBeBytes(source.bar);
    expect(loads.loaded).toBeBuffers(spy.consumed);
  });

  test('the boundaries pass through a v1 VMM between two framed bridges', () => {
    const source = v1Sim(`${spec},seed=5`);
    const pieces: Uint8Array[] = [];
    const small = { dataSection: new Uint8Array(8192) };
    const save = new V1Save(presentV1(presentV2(source.device, framed), small), (piece) => pieces.push(piece.slice()));
    save.setup();
    while (save.iterate() > 0);
    save.stop();
    save.complete();

    const target = v1Sim(`${spec},strict=1`);
    const restore = new V1Restore(presentV1(presentV2(target.device, framed), small));
    restore.setup();
    for (const piece of pieces) restore.load(piece);
    restore.complete();
    expect(target.bar).toBeBytes(source.bar);
  });
});
