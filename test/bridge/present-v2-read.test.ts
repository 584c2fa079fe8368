import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { failOnce } from '../support/fail-once.ts';
import { newVmm, readSome, readToEnd } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const [a, b, c] = [noise(3000, 1), noise(500, 2), noise(9000, 3)];

describe('presentV2 read', () => {
  test.each([1, 7, 499, 500, 501, 2999, 65_536])('hands v1 buffers out in pieces of at most %i bytes', (block) => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b, c] }));
    const session = begin(V2.STOP_COPY);
    const pieces = readToEnd(session, block);
    expect(pieces.every((piece) => piece.length <= block)).toBe(true);
    expect(pieces).toBeBytes([a, b, c]);
    expect(spy.consumed).toBeBuffers([a, b, c]);
  });

  test('goes through the v1 registers in the order of the protocol, and acknowledges only what was read to its end', () => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
    const session = begin(V2.STOP_COPY);
    const during = (length: number): string[] => {
      spy.log.length = 0;
      readSome(session, length);
      return spy.log.filter((line) => !line.includes('device_state'));
    };
    expect(during(1000)).toEqual(['read pending_bytes 3500', `read data_offset ${DATA_OFFSET}`, 'read data_size 3000']);
    expect(during(1999)).toEqual([]);
    expect(during(1000)).toEqual([]);
    expect(during(1000)).toEqual(['read pending_bytes 500', `read data_offset ${DATA_OFFSET}`, 'read data_size 500']);
    expect(during(1000)).toEqual(['read pending_bytes 0']);
    expect(during(1000)).toEqual(['read pending_bytes 0']);
  });

  describe('ahead', () => {
    const accesses = (log: string[]): string[] => log.filter((line) => !line.includes('device_state'));

    test('fetches the next buffer once the one before was read to its end, and only then', () => {
      const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
      const session = begin(V2.STOP_COPY);
      const during = (act: () => void): string[] => {
        spy.log.length = 0;
        act();
        return accesses(spy.log);
      };
      expect(during(() => session.readAhead?.())).toEqual([]);
      readSome(session, 2999);
      expect(during(() => session.readAhead?.())).toEqual([]);
      readSome(session, 1);
      expect(during(() => session.readAhead?.())).toEqual([
        'read pending_bytes 500',
        `read data_offset ${DATA_OFFSET}`,
        'read data_size 500',
      ]);
      expect(during(() => session.readAhead?.())).toEqual([]);
      expect(during(() => expect(readSome(session, 1000)).toEqual(b))).toEqual([]);
    });

    test('keeps what it fetched over the change to stop-and-copy', () => {
      const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [c] }));
      const session = begin(V2.PRE_COPY);
      readSome(session, 3000);
      session.readAhead?.();
      device.setState(V2.STOP_COPY);
      expect(readToEnd(session)).toBeBytes([b, c]);
      expect(spy.consumed.length).toBe(3);
    });

    test('leaves its failures to the next read, each told once, and not to another session', () => {
      const { tape, spy, device, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
      const first = begin(V2.STOP_COPY);
      readSome(first, 3000);
      failOnce(spy, 'data_offset', failure('EREMOTEIO'));
      expect(outcome(() => first.readAhead?.())).toBe('OK');
      expect(outcome(() => first.read(new Uint8Array(1)))).toBe('EREMOTEIO');
      expect(readSome(first, 1000)).toEqual(b);
      tape.stopCopy.push(a);
      failOnce(spy, 'data_offset', failure('EREMOTEIO'));
      expect(outcome(() => first.readAhead?.())).toBe('OK');
      device.setState(V2.STOP);
      const second = begin(V2.STOP_COPY);
      expect(readSome(second, 3000)).toEqual(a);
    });

    test('does not ask again while a failure waits for the next read', () => {
      const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
      const session = begin(V2.STOP_COPY);
      readSome(session, 3000);
      failOnce(spy, 'data_offset', failure('EREMOTEIO'));
      session.readAhead?.();
      spy.log.length = 0;
      session.readAhead?.();
      expect(spy.log).toEqual([]);
      expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EREMOTEIO');
    });

    test('that comes too early is no answer of the next read', () => {
      const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
      const session = begin(V2.STOP_COPY);
      readSome(session, 3000);
      failOnce(spy, 'data_size', notYet());
      session.readAhead?.();
      expect(readSome(session, 1000)).toEqual(b);
    });

    test('is nothing in a session that has ended, or resumes', () => {
      const { spy, device, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
      const session = begin(V2.STOP_COPY);
      readSome(session, 3000);
      device.setState(V2.STOP);
      spy.log.length = 0;
      session.readAhead?.();
      begin(V2.RESUMING).readAhead?.();
      expect(accesses(spy.log)).toEqual([]);
    });
  });

  test('takes bytes from where the driver shows them, and copies nothing', () => {
    const { tape, begin } = newVmm(new TapeV1({ stopCopy: [a, b] }));
    const session = begin(V2.STOP_COPY);
    const shown = session.peek?.(1000);
    expect(shown?.buffer).toBe(tape.section.buffer);
    expect(shown).toEqual(a.subarray(0, 1000));
    expect(session.peek?.(1000)).toEqual(shown);
    session.consume?.(1000);
    expect(session.peek?.(5000)).toEqual(a.subarray(1000));
    expect(readSome(session, 2000)).toEqual(a.subarray(1000));
    expect(readSome(session, 1000)).toEqual(b);
    expect(session.peek?.(1)?.length).toBe(0);
  });

  test('finds nothing at all where there was a state before: that is no end, but an error', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ stopCopy: [a] }));
    readToEnd(begin(V2.STOP_COPY));
    device.setState(V2.RUNNING);
    const again = begin(V2.STOP_COPY);
    expect(thrownBy(() => readSome(again, 100))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    device.setState(V2.RUNNING);
    tape.stopCopy.push(b);
    expect(readToEnd(begin(V2.STOP_COPY))).toEqual([b]);
  });

  test('of 0 bytes touches nothing', () => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a] }));
    const session = begin(V2.STOP_COPY);
    expect(session.read(new Uint8Array(0))).toBe(0);
    expect(spy.log.filter((line) => !line.includes('device_state'))).toEqual([]);
  });

  test('without a mapped data section reads it with accesses, each byte once', () => {
    const { spy, begin } = newVmm(new TapeV1({ stopCopy: [a, c] }));
    spy.options = { mapped: false };
    const pieces = readToEnd(begin(V2.STOP_COPY), 1000);
    expect(pieces).toBeBytes([a, c]);
    const read = spy.log.filter((line) => line.startsWith('read data ')).map((line) => Number(line.split('+')[1]));
    expect(read.reduce((sum, length) => sum + length, 0)).toBe(a.length + c.length);
  });

  test('in pre-copy is ENOMSG at pending 0, each time, and goes on when there is data again', () => {
    const { tape, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    const session = begin(V2.PRE_COPY);
    expect(readSome(session, 5000)).toEqual(a);
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    tape.preCopy.push(b);
    expect(readSome(session, 5000)).toEqual(b);
  });

  test('in STOP_COPY is 0 at pending 0, each time', () => {
    const session = newVmm().begin(V2.STOP_COPY);
    expect([session.read(new Uint8Array(9)), session.read(new Uint8Array(9))]).toEqual([0, 0]);
  });

  test('is ENOMSG where bytes are pending but none are there now (data_size 0)', () => {
    const { tape, begin } = newVmm();
    const session = begin(V2.PRE_COPY);
    tape.lies = { pending: 100 };
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    tape.preCopy.push(a);
    expect(readSome(session, 5000)).toBeBytes(a);
  });

  test.each([
    ['a size beyond its region', { size: 2 ** 40 }],
    ['an offset beyond its region', { offset: 2 ** 40 }],
    ['an offset in the registers', { offset: 16 }],
  ])('is EIO where the driver shows %s', (_, lies) => {
    const { tape, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    const session = begin(V2.PRE_COPY);
    tape.lies = lies;
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EIO');
  });
});

describe('presentV2 carry', () => {
  test.each([true, false])('the rest of a half-read buffer survives the change to STOP_COPY: mapped %s', (mapped) => {
    const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [a, b], stopCopy: [c] }));
    spy.options = { mapped };
    const session = begin(V2.PRE_COPY);
    const pieces = [readSome(session, 1234)];
    device.setState(V2.STOP_COPY);
    spy.device.mapped?.fill(0xee); // the driver may reuse its place
    pieces.push(...readToEnd(session, 700));
    expect(pieces).toBeBytes([a, b, c]);
    expect(spy.consumed.map((buffer) => buffer.length)).toEqual([3000, 500, 9000]);
  });

  test('is where the rest of the buffer is taken from', () => {
    const carry = new Uint8Array(65_536);
    const { tape, device, begin } = newVmm(new TapeV1({ preCopy: [a], stopCopy: [b] }), { carry });
    const session = begin(V2.PRE_COPY);
    readSome(session, 1000);
    device.setState(V2.STOP_COPY);
    tape.section.fill(0xee);
    session.consume?.(500);
    expect(session.peek?.(700)?.buffer).toBe(carry.buffer);
    expect(session.peek?.(700)).toEqual(a.subarray(1500, 2200));
    session.consume?.(700);
    expect(readToEnd(session)).toBeBytes([a.subarray(2200), b]);
  });

  test('a buffer that was read to its end is acknowledged after the change, not read again', () => {
    const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [a], stopCopy: [b] }));
    const session = begin(V2.PRE_COPY);
    const pieces = [readSome(session, 5000)];
    device.setState(V2.STOP_COPY);
    pieces.push(...readToEnd(session));
    expect(pieces).toBeBytes([a, b]);
    expect(spy.consumed).toBeBytes([a, b]);
  });

  test('a failed change of state loses nothing either', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ preCopy: [a], stopCopy: [b] }));
    tape.refusals.set('3 2', { error: failure('EBUSY') });
    const session = begin(V2.PRE_COPY);
    const pieces = [readSome(session, 100)];
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EBUSY');
    pieces.push(readSome(session, 100));
    device.setState(V2.STOP_COPY);
    pieces.push(...readToEnd(session, 64));
    expect(pieces).toBeBytes([a, b]);
  });

  test('is the memory that was given, and no larger than the data section', () => {
    const carry = new Uint8Array(65_536);
    const { device, begin } = newVmm(new TapeV1({ preCopy: [noise(65_536)] }), { carry });
    const session = begin(V2.PRE_COPY);
    readSome(session, 1);
    device.setState(V2.STOP_COPY);
    expect(carry.subarray(0, 65_535)).toBeBytes(noise(65_536).subarray(1));
  });

  test('does not survive its session', () => {
    const { device, tape, begin } = newVmm(new TapeV1({ preCopy: [a], stopCopy: [b] }));
    const session = begin(V2.PRE_COPY);
    readSome(session, 100);
    device.setState(V2.STOP_COPY);
    device.setState(V2.STOP);
    tape.reset();
    tape.preCopy.length = 0;
    device.setState(V2.STOP);
    expect(join(readToEnd(begin(V2.STOP_COPY)))).toEqual(b);
  });
});
