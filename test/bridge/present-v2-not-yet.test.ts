import { describe, expect, test } from 'vitest';
import type { PresentV2Options } from '../../src/bridge/index.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { sometimes, failure, notYet, outcome } from '../support/errno.ts';
import { failOnce } from '../support/fail-once.ts';
import { newVmm, readSome, readToEnd } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const [a, b, c] = [noise(3000, 1), noise(500, 2), noise(9000, 3)];

describe('presentV2 EAGAIN while saving', () => {
  test.each([1, 600, 65_536])('at any access, blocks of %i: repeating the read loses and doubles nothing', (block) => {
    for (const options of [{}, { segmentation: 'framed' }, { offerP2P: true }] satisfies PresentV2Options[]) {
      const calm = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [c, b] }), options);
      const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [c, b] }), options);
      const expected: Uint8Array[] = [];
      const quiet = calm.begin(V2.PRE_COPY);
      expected.push(readSome(quiet, 10));
      calm.device.setState(V2.STOP_COPY);
      expected.push(...readToEnd(quiet, block));

      const session = begin(V2.PRE_COPY);
      const inject = sometimes();
      spy.options = { mapped: false, before: inject };
      const again = <T>(call: () => T): T => {
        for (;;) {
          let result: T | undefined;
          const answer = outcome(() => {
            result = call();
          });
          if (answer === 'OK') return result as T;
          expect(answer).toBe('EAGAIN');
        }
      };
      const pieces = [again(() => readSome(session, 10).slice())];
      again(() => device.setState(V2.STOP_COPY));
      for (;;) {
        const piece = again(() => readSome(session, block).slice());
        if (piece.length === 0) break;
        pieces.push(piece);
      }
      expect(pieces).toBeBytes(expected);
      expect(spy.consumed).toBeBytes([a, b, c, b]);
    }
  });

  test('between data_offset and data_size: the buffer that was shown is not acknowledged unread', () => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
    const session = begin(V2.STOP_COPY);
    failOnce(spy, 'data_size', notYet());
    expect(outcome(() => session.read(new Uint8Array(10)))).toBe('EAGAIN');
    expect(readToEnd(session)).toBeBytes([a, b]);
  });

  test('between data_offset and data_size, with precopy info asked for in between', () => {
    const { spy, begin } = newVmm(new TapeV1({ preCopy: [a, b] }));
    const session = begin(V2.PRE_COPY);
    failOnce(spy, 'data_size', notYet());
    expect(outcome(() => session.read(new Uint8Array(10)))).toBe('EAGAIN');
    expect(session.precopyInfo()).toEqual({ initialBytes: 3500, dirtyBytes: 0 });
    expect([readSome(session, 5000), readSome(session, 5000)]).toBeBytes([a, b]);
  });

  test('a driver that was asked, and has none after all, is asked for the next: that is no end of the stream', () => {
    const { tape, spy, begin } = newVmm();
    tape.lies = { pending: 3000 };
    const session = begin(V2.STOP_COPY);
    failOnce(spy, 'data_size', notYet());
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EAGAIN');
    tape.lies = {};
    spy.options = {
      before: (_, what) => {
        if (what === 'data_size' && tape.stopCopy.length === 0) tape.stopCopy.push(a); // behind data_offset, too late for it
      },
    };
    expect(readSome(session, 5000)).toEqual(a);
  });

  test('MIG_DATA_SIZE is repeated as well, and says what is left', () => {
    const { spy, device, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
    const session = begin(V2.STOP_COPY);
    failOnce(spy, 'pending_bytes', notYet());
    expect(outcome(() => device.stopCopyLength())).toBe('EAGAIN');
    expect(device.stopCopyLength()).toBe(3500);
    expect(readToEnd(session)).toBeBytes([a, b]);
  });

  test('an error of the driver in between is no acknowledgement either', () => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
    const session = begin(V2.STOP_COPY);
    failOnce(spy, 'data_size', failure('EIO'));
    expect(outcome(() => session.read(new Uint8Array(10)))).toBe('EIO');
    expect(readToEnd(session)).toBeBytes([a, b]);
  });
});
