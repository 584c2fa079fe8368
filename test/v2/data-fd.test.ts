import { describe, expect, test } from 'vitest';
import { readData, writeData } from '../../src/v2/data-fd.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { TapeV2, type Answer } from '../support/tape-v2.ts';

const interrupted = (): ReturnType<typeof failure> => failure('EINTR', 'ERR_SYSCALL');

function reading(...answers: Answer[]): V2DataSession {
  return new TapeV2({ stopAnswers: answers }).setState(V2.STOP_COPY) as V2DataSession;
}

function writing(...answers: (number | ReturnType<typeof failure> | undefined)[]): {
  tape: TapeV2;
  session: V2DataSession;
} {
  const tape = new TapeV2();
  tape.writeAnswers.push(...answers);
  return { tape, session: tape.setState(V2.RESUMING) as V2DataSession };
}

describe('readData', () => {
  test('repeats a read that a signal cut short, as often as it takes', () => {
    const into = new Uint8Array(100);
    expect(readData(reading(interrupted(), interrupted(), noise(7)), into)).toBe(7);
    expect(into.subarray(0, 7)).toEqual(noise(7));
  });

  test('of a driver that is interrupted for ever ends with EINTR', () => {
    const session: V2DataSession = {
      ...reading(),
      read: () => {
        throw interrupted();
      },
      write: () => {
        throw interrupted();
      },
    };
    for (const access of [() => readData(session, new Uint8Array(1)), () => writeData(session, new Uint8Array(1))]) {
      expect(thrownBy(access)).toMatchObject({
        code: 'ERR_DEVICE',
        errno: 'EINTR',
        message: 'data fd: interrupted 1000 times in a row',
      });
    }
  });

  test('gives 0 as it is', () => {
    expect(readData(reading(0), new Uint8Array(100))).toBe(0);
  });

  test.each([-1, 101, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('refuses a length of %d of 100', (length) => {
    expect(thrownBy(() => readData(reading(length), new Uint8Array(100)))).toMatchObject({
      code: 'ERR_DEVICE',
      errno: 'EIO',
    });
  });

  test('passes "not yet" and errors on', () => {
    expect(outcome(() => readData(reading(notYet()), new Uint8Array(1)))).toBe('EAGAIN');
    expect(outcome(() => readData(reading(failure('ENOMEM')), new Uint8Array(1)))).toBe('ENOMEM');
  });
});

describe('writeData', () => {
  test('repeats a write that a signal cut short, each byte once', () => {
    const { tape, session } = writing(interrupted(), interrupted(), 60);
    expect(writeData(session, noise(100))).toBe(60);
    expect(tape.taken).toEqual([noise(100).subarray(0, 60)]);
  });

  test.each([0, -1, 101, 1.5, Number.NaN])('refuses a length of %d of 100', (length) => {
    const { session } = writing(length);
    expect(thrownBy(() => writeData(session, noise(100)))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
  });
});
