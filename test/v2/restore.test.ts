import { describe, expect, test } from 'vitest';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { SpyV2 } from '../support/spy-v2.ts';
import { TapeV2 } from '../support/tape-v2.ts';

const state = noise(10_000);

describe('V2Restore', () => {
  test.each([
    [true, 'RUNNING'],
    [false, 'STOP'],
  ])('with running %s goes RESUMING, data, %s, close', (running, last) => {
    const spy = new SpyV2(new TapeV2());
    const restore = new V2Restore(spy);
    restore.setup();
    restore.load(state);
    restore.complete(running);
    expect(spy.log).toEqual(['setState RESUMING', 'write 10000: 10000', `setState ${last}`, 'close']);
    expect(spy.bytes('in')).toBeBytes(state);
  });

  test('writes every byte once, however the stream was cut and however little the device takes', () => {
    const tape = new TapeV2();
    tape.writeAnswers.push(1, notYet(), 999, notYet(), notYet(), 4000, undefined, 3);
    const waits: unknown[] = [];
    const restore = new V2Restore(tape, (fd) => waits.push(fd));
    restore.setup();
    for (const piece of cut(state, [1, 7000, 13])) restore.load(piece);
    restore.complete();
    expect(tape.taken).toBeBytes(state);
    expect(waits).toHaveLength(3);
    expect(tape.state).toBe(V2.RUNNING);
  });

  test.each([0, -1, 10_001, 1.5])('refuses a device that claims to have taken %d of 10000 bytes', (claim) => {
    const tape = new TapeV2();
    tape.writeAnswers.push(claim);
    const restore = new V2Restore(tape);
    restore.setup();
    expect(thrownBy(() => restore.load(state))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
  });

  test('passes the error of a write on', () => {
    const tape = new TapeV2();
    tape.writeAnswers.push(100, failure('ENOMEM'));
    const restore = new V2Restore(tape);
    restore.setup();
    expect(outcome(() => restore.load(state))).toBe('ENOMEM');
    expect(join(tape.taken)).toEqual(state.subarray(0, 100));
  });

  test('a device that begins no session is at fault', () => {
    const tape = new TapeV2();
    tape.setState = () => undefined;
    expect(outcome(() => new V2Restore(tape).setup())).toBe('EIO');
  });

  test('load before setup is a mistake of the caller', () => {
    expect(() => new V2Restore(new TapeV2()).load(state)).toThrow('setup() has not been called');
  });

  test('load after complete is one as well', () => {
    const restore = new V2Restore(new TapeV2());
    restore.setup();
    restore.load(state);
    restore.complete();
    expect(() => restore.load(state)).toThrow('setup() has not been called');
  });
});
