import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { noise } from '../support/bytes.ts';
import { sometimes, failure, outcome } from '../support/errno.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const quiet = (): void => {
  // asks again at once
};

describe('V1Restore', () => {
  test.each([true, false])('reads data_offset, hands the data over, writes data_size; mapped %s', (mapped) => {
    const tape = new TapeV1();
    const spy = new SpyV1(tape.device, { mapped });
    const written = (what: string): string[] => (mapped ? [] : [what]);
    const restore = new V1Restore(spy);
    restore.setup();
    restore.load(noise(100));
    restore.load(noise(50, 2));
    restore.complete();
    expect(spy.log).toEqual([
      'read device_state 1',
      'write device_state 4',
      `read data_offset ${DATA_OFFSET}`,
      ...written(`write data ${DATA_OFFSET}+100`),
      'write data_size 100',
      `read data_offset ${DATA_OFFSET}`,
      ...written(`write data ${DATA_OFFSET}+50`),
      'write data_size 50',
      'read device_state 4',
      'write device_state 1',
    ]);
    expect(tape.loaded).toBeBuffers([noise(100), noise(50, 2)]);
  });

  test.each([65_535, 65_536, 65_537, 200_000])('splits %i bytes at the end of the data section', (size) => {
    const tape = new TapeV1();
    const restore = new V1Restore(tape.device);
    restore.setup();
    restore.load(noise(size));
    const expected = Array.from({ length: Math.ceil(size / 65_536) }, (_, n) => Math.min(65_536, size - n * 65_536));
    expect(tape.loaded.map((bytes) => bytes.length)).toEqual(expected);
    expect(tape.loaded).toBeBytes(noise(size));
  });

  test('complete(false) leaves the device stopped', () => {
    const tape = new TapeV1();
    const restore = new V1Restore(tape.device);
    restore.setup();
    restore.complete(false);
    expect(tape.states).toEqual([4, 0]);
  });

  test('keeps the reserved bits of device_state', () => {
    const tape = new TapeV1();
    tape.reserved = 0xffff_fff8;
    const restore = new V1Restore(tape.device);
    restore.setup();
    restore.complete();
    expect(tape.states).toEqual([4, 1]);
  });

  test('repeats any access that is not ready, and doubles nothing', () => {
    const tape = new TapeV1();
    const inject = sometimes();
    const spy = new SpyV1(tape.device, { before: inject });
    const restore = new V1Restore(spy, quiet);
    restore.setup();
    restore.load(noise(70_000));
    restore.complete();
    expect(tape.loaded).toBeBytes(noise(70_000));
    expect(tape.states).toEqual([4, 1]);
  });

  test('passes the errno of a refused transaction on', () => {
    const tape = new TapeV1();
    tape.onLoad = () => {
      throw failure('EINVAL');
    };
    const restore = new V1Restore(tape.device);
    restore.setup();
    expect(outcome(() => restore.load(noise(10)))).toBe('EINVAL');
  });
});
