import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { noise, sha256 } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { newVmm, readSome } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

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
    expect(sha256(...pieces)).toBe(sha256(a, b));
    expect(sha256(...spy.consumed)).toBe(sha256(a, b));
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
  test('is the estimate, or the data section, until the device has shown how much it has', () => {
    expect(newVmm().device.stopCopyLength()).toBe(65_536);
    expect(newVmm(new TapeV1(), { stopCopyEstimate: 123 }).device.stopCopyLength()).toBe(123);
    expect(newVmm(new TapeV1(), { stopCopyEstimate: 0 }).device.stopCopyLength()).toBe(0);
  });

  test('is the largest pending_bytes ever seen, in any state, over sessions and resets', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ preCopy: [b] }), { stopCopyEstimate: 123 });
    const session = begin(V2.PRE_COPY);
    session.precopyInfo();
    expect(device.stopCopyLength()).toBe(500);
    tape.preCopy.push(c);
    readSome(session, 500);
    session.precopyInfo();
    expect(device.stopCopyLength()).toBe(9500);
    device.setState(V2.STOP);
    expect(device.stopCopyLength()).toBe(9500);
    device.reset();
    expect(device.stopCopyLength()).toBe(9500);
  });
});
