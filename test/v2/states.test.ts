import { describe, expect, test } from 'vitest';
import { isPreCopy, isSaving, isV2State, parseV2State, V2, v2StateName } from '../../src/v2/states.ts';
import { thrownBy } from '../support/errno.ts';

/** enum vfio_device_mig_state, in order (linux/vfio.h, 6.2). */
const order = ['ERROR', 'STOP', 'RUNNING', 'STOP_COPY', 'RESUMING', 'RUNNING_P2P', 'PRE_COPY', 'PRE_COPY_P2P'] as const;

describe('V2', () => {
  test('numbers the states as the header does', () => {
    expect(Object.entries(V2).toSorted(([, a], [, b]) => a - b)).toEqual(order.map((name, number) => [name, number]));
  });
});

describe('v2StateName', () => {
  test.each(order.map((name, number) => [number, name] as const))('of %i is %s', (number, name) => {
    expect(v2StateName(number)).toBe(name);
    expect(isV2State(number)).toBe(true);
  });

  test.each([-1, 8, 0x8000_0000])('of %i, which is no state, is the number in brackets', (number) => {
    expect(v2StateName(number)).toBe(`(${number})`);
    expect(isV2State(number)).toBe(false);
  });
});

describe('parseV2State', () => {
  test.each(order)('takes %s in any case, with the prefix and with dashes', (name) => {
    for (const text of [name, name.toLowerCase(), `VFIO_DEVICE_STATE_${name}`, name.replaceAll('_', '-')]) {
      expect(parseV2State(text)).toBe(V2[name]);
    }
  });

  test.each(['', 'PAUSED', 'toString', 'constructor', '__proto__', 'STOP ', '1'])(
    'refuses %j, naming the states',
    (text) => {
      expect(thrownBy(() => parseV2State(text))).toMatchObject({
        code: 'ERR_STATE_UNKNOWN',
        errno: 'EINVAL',
        message: `device state: ${text} is none of ${order.join(', ')}`,
      });
    },
  );
});

describe('isPreCopy and isSaving', () => {
  test('name the two pre-copy states, and those and STOP_COPY', () => {
    expect(order.filter((name) => isPreCopy(V2[name]))).toEqual(['PRE_COPY', 'PRE_COPY_P2P']);
    expect(order.filter((name) => isSaving(V2[name]))).toEqual(['STOP_COPY', 'PRE_COPY', 'PRE_COPY_P2P']);
  });
});
