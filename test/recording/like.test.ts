import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DeviceEvent } from '../../src/device/device-event.ts';
import { callText, isLike, writeCall, writeNumbers } from '../../src/recording/line.ts';
import { GAP, TextWithGaps } from '../../src/recording/line-writer.ts';
import { events } from './lines.ts';

/** The text of one call with the numbers of another. */
function filled(form: DeviceEvent, numbersOf: DeviceEvent): string {
  const text = new TextWithGaps();
  writeCall(text, form);
  const numbers: number[] = [];
  writeNumbers({ number: (value) => numbers.push(value) }, numbersOf);
  const [first, ...rest] = text.written.split(GAP);
  expect(rest).toHaveLength(numbers.length);
  return `${first}${rest.map((piece, n) => `${numbers[n]}${piece}`).join('')}`;
}

const seldom = new Set(['other', 'set-state', 'precopy-info', 'precopy-info-v2', 'reset']);

describe('isLike', () => {
  it('is true of no calls but those whose texts differ in what writeNumbers() gives', () => {
    fc.assert(
      fc.property(fc.array(events, { minLength: 2, maxLength: 20 }), (calls) => {
        for (const a of calls) {
          for (const b of calls) if (isLike(a, b)) expect(filled(a, b)).toBe(callText(b));
        }
      }),
    );
  });

  it('is true of a call that is made often and itself, unless it has failed', () => {
    fc.assert(
      fc.property(events, (call) => {
        expect(isLike(call, call)).toBe(call.errno === undefined && !seldom.has(call.call));
      }),
    );
  });

  it('looks at the value of device_state, whose name is in the text, and of no other register', () => {
    const read = (register: 'device_state' | 'pending_bytes', value: number): DeviceEvent => ({
      time: 0,
      protocol: 'v1',
      call: 'register',
      access: 'read',
      register,
      value,
    });
    expect(isLike(read('device_state', 1), read('device_state', 3))).toBe(false);
    expect(isLike(read('pending_bytes', 1), read('pending_bytes', 3))).toBe(true);
    expect(
      isLike(read('pending_bytes', 1), { ...read('pending_bytes', 1), protocol: 'draft-2019' } as DeviceEvent),
    ).toBe(false);
  });
});
