import { describe, expect, test } from 'vitest';
import { presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome } from '../support/errno.ts';
import { newVmm, readSome } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';
import { REGISTERS } from '../support/v1-user.ts';

const [a, b, c] = [noise(3000, 1), noise(500, 2), noise(9000, 3)];

describe('presentV2 precopyInfo', () => {
  test('the first pending_bytes is initial until it was read out, later growth is dirty', () => {
    const { tape, begin } = newVmm(new TapeV1({ preCopy: [a, b] }));
    const session = begin(V2.PRE_COPY);
    expect(session.precopyInfo()).toEqual({ initialBytes: 3500, dirtyBytes: 0 });
    readSome(session, 1000);
    expect(session.precopyInfo()).toEqual({ initialBytes: 2500, dirtyBytes: 0 });
    readSome(session, 5000);
    tape.preCopy.push(c);
    expect(session.precopyInfo()).toEqual({ initialBytes: 500, dirtyBytes: 9000 });
    readSome(session, 5000);
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 9000 });
    readSome(session, 4000);
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 5000 });
    readSome(session, 5000);
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
  });

  test('asked before, between or never does not change what is read', () => {
    const { begin, spy } = newVmm(new TapeV1({ preCopy: [a, b] }));
    const session = begin(V2.PRE_COPY);
    const pieces: Uint8Array[] = [];
    for (let n = 0; n < 8; n += 1) {
      session.precopyInfo();
      if (outcome(() => pieces.push(readSome(session, 600).slice())) !== 'OK') break;
      session.precopyInfo();
    }
    expect(pieces).toBeBytes([a, b]);
    expect(spy.consumed).toBeBytes([a, b]);
  });

  test('shrinks where the driver has less pending than it had', () => {
    const { tape, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    const session = begin(V2.PRE_COPY);
    tape.lies = { pending: 50_000 };
    expect(session.precopyInfo()).toEqual({ initialBytes: 50_000, dirtyBytes: 0 });
    tape.lies = {};
    expect(session.precopyInfo()).toEqual({ initialBytes: 3000, dirtyBytes: 0 });
  });

  test('is EINVAL outside pre-copy', () => {
    const { device, begin } = newVmm();
    const session = begin(V2.PRE_COPY);
    device.setState(V2.STOP_COPY);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
  });
});

describe('presentV2 stopCopyLength', () => {
  const FULL_READ = 1024 * 1024;

  test('before the device was saved: the estimate, or the data section, and enough for reads of full size', () => {
    expect(newVmm().device.stopCopyLength()).toBe(65_536);
    for (const [estimate, expected] of [
      [0, 65_536],
      [123, 65_536],
      [100_000, 100_000],
    ] as const) {
      expect(newVmm(new TapeV1(), { stopCopyEstimate: estimate }).device.stopCopyLength()).toBe(expected);
    }
    const large = new TapeV1({ section: 8 * FULL_READ });
    expect(newVmm(large).device.stopCopyLength()).toBe(8 * FULL_READ);
    expect(newVmm(large, { stopCopyEstimate: 5 }).device.stopCopyLength()).toBe(FULL_READ);
  });

  test('is what is left, pre-copy included, and falls as it is read; 0 at the end of the stream only', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [c] }));
    const session = begin(V2.PRE_COPY);
    expect(device.stopCopyLength()).toBe(3500);
    readSome(session, 1000);
    expect(device.stopCopyLength()).toBe(2500);
    readSome(session, 2000);
    readSome(session, 500);
    expect(device.stopCopyLength()).toBe(1); // pending_bytes is 0 now, and what the stop adds is not known
    tape.preCopy.push(b);
    expect(device.stopCopyLength()).toBe(500);
    device.setState(V2.STOP_COPY);
    expect(device.stopCopyLength()).toBe(9500);
    for (let left = 9500; left > 0;) {
      left -= readSome(session, 700).length;
      expect(device.stopCopyLength()).toBe(left);
    }
    expect(readSome(session, 700)).toHaveLength(0);
  });

  test.each([true, false])('afterwards is what the last session had, read to its end or not: %s', (toTheEnd) => {
    const { device, begin } = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [noise(60_000), noise(30_000)] }));
    const session = begin(V2.PRE_COPY);
    readSome(session, 1000);
    if (toTheEnd) {
      device.setState(V2.STOP_COPY);
      while (readSome(session, 4096).length > 0);
      device.setState(V2.STOP);
    }
    device.setState(V2.RUNNING);
    expect(device.stopCopyLength()).toBe(toTheEnd ? 93_500 : 65_536);
    device.reset();
    expect(device.stopCopyLength()).toBe(toTheEnd ? 93_500 : 65_536);
  });

  test('afterwards counts what was left when the session was given up', () => {
    const { device, begin } = newVmm(new TapeV1({ preCopy: [noise(60_000), noise(30_000)] }));
    readSome(begin(V2.PRE_COPY), 1000);
    device.setState(V2.RUNNING);
    expect(device.stopCopyLength()).toBe(90_000);
  });

  const buffers = [noise(60_000, 1), noise(60_000, 2), noise(7, 3)];
  /** How a VMM as QEMU 10 reads: a buffer as large as what MIG_DATA_SIZE says before it begins, at most 1 MiB. */
  function saves(pending: bigint | undefined): { sizes: number[]; told: number[]; pieces: Uint8Array[] } {
    const tape = new TapeV1();
    const { regionSize, dataSection, mapped } = tape.device;
    const driver: V1Device = {
      regionSize,
      dataSection,
      mapped,
      read(offset, into) {
        tape.device.read(offset, into);
        const view = new DataView(into.buffer, into.byteOffset);
        if (offset === REGISTERS.pending_bytes.offset && pending !== undefined && view.getBigUint64(0, true) > 0n) {
          view.setBigUint64(0, pending, true);
        }
      },
      write: (offset, from) => tape.device.write(offset, from),
      reset: () => tape.reset(),
    };
    const device = presentV2(driver);
    const sizes: number[] = [];
    const told: number[] = [];
    const pieces: Uint8Array[] = [];
    for (let round = 0; round < 2; round += 1) {
      tape.stopCopy.splice(0, tape.stopCopy.length, ...buffers);
      const block = Math.min(FULL_READ, device.stopCopyLength());
      sizes.push(block);
      const session = device.setState(V2.STOP_COPY);
      for (let piece = readSome(session, block); piece.length > 0; piece = readSome(session, block)) {
        pieces.push(piece.slice());
        told.push(device.stopCopyLength());
      }
      device.setState(V2.RUNNING);
    }
    return { sizes, told, pieces };
  }

  test.each([1n, 2n ** 64n - 1n, 2n ** 53n])(
    'a pending_bytes of %i, which is a mere yes, makes no small reads and no error',
    (yes) => {
      const { sizes, told, pieces } = saves(yes);
      const exact = saves(undefined);
      expect(pieces).toBeBytes(exact.pieces);
      expect(pieces).toHaveLength(exact.pieces.length);
      expect(Math.min(...sizes)).toBeGreaterThanOrEqual(65_536);
      expect(told.slice(0, 3)).toEqual([65_536, 65_536, 0]);
    },
  );

  test('is no less than what is left of the buffer that is shown, if pending_bytes says less', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ stopCopy: [a] }));
    tape.lies = { pending: 5 };
    readSome(begin(V2.STOP_COPY), 1000);
    expect(device.stopCopyLength()).toBe(2000);
  });

  test('a pending_bytes of 1 is a byte, if the driver has never shown more for it', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ stopCopy: [b, noise(1)] }));
    const first = begin(V2.STOP_COPY);
    readSome(first, 500);
    expect(device.stopCopyLength()).toBe(1);
    expect(readSome(first, 9)).toEqual(noise(1));
    device.setState(V2.STOP);
    tape.stopCopy.push(noise(1));
    begin(V2.STOP_COPY);
    expect(device.stopCopyLength()).toBe(1);
  });

  test('a driver that fails to say how much is pending is asked by whoever reads', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ stopCopy: [a] }));
    const session = begin(V2.STOP_COPY);
    tape.readPendingBytes = () => {
      throw failure('EREMOTEIO');
    };
    expect(device.stopCopyLength()).toBe(1);
    expect(outcome(() => readSome(session, 10))).toBe('EREMOTEIO');
  });
});
