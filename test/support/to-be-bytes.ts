import { expect } from 'vitest';
import { byteDifference, type Bytes } from './byte-difference.ts';

/* `expect(received).toBeBytes(expected)`, for all tests. A list of pieces stands for all their bytes. */

declare module 'vitest' {
  interface Matchers<T> {
    toBeBytes(expected: T extends Bytes ? Bytes : never): void;
  }
}

expect.extend({
  toBeBytes(received: unknown, expected: unknown) {
    if (!isBytes(received) || !isBytes(expected)) throw new TypeError('toBeBytes: not bytes, nor pieces of bytes');
    const difference = byteDifference(received, expected);
    return {
      pass: difference === undefined,
      message: () => difference ?? 'the bytes were expected to differ, and are the same',
    };
  },
});

function isBytes(value: unknown): value is Bytes {
  return value instanceof Uint8Array || (Array.isArray(value) && value.every((piece) => piece instanceof Uint8Array));
}
