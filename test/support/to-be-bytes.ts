import { expect } from 'vitest';
import { byteDifference, type Bytes } from './byte-difference.ts';

/*
 * For all tests: `expect(received).toBeBytes(expected)`, to which a list of pieces stands for all their bytes, and
 * `expect(received).toBeBuffers(expected)`, to which it is a list of buffers that begin and end in the same places.
 */

declare module 'vitest' {
  interface Matchers<T> {
    toBeBytes(expected: T extends Bytes ? Bytes : never): void;
    toBeBuffers(expected: T extends readonly Uint8Array[] ? readonly Uint8Array[] : never): void;
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
  toBeBuffers(received: unknown, expected: unknown) {
    if (!isBuffers(received) || !isBuffers(expected)) throw new TypeError('toBeBuffers: not a list of buffers');
    const [here, there] = [sizesOf(received), sizesOf(expected)];
    const difference = here === there ? byteDifference(received, expected) : `buffers of ${here} bytes, not ${there}`;
    return {
      pass: difference === undefined,
      message: () => difference ?? 'the buffers were expected to differ, and are the same',
    };
  },
});

function sizesOf(buffers: readonly Uint8Array[]): string {
  return `[${buffers.map(({ length }) => length).join(', ')}]`;
}

function isBytes(value: unknown): value is Bytes {
  return value instanceof Uint8Array || isBuffers(value);
}

function isBuffers(value: unknown): value is readonly Uint8Array[] {
  return Array.isArray(value) && value.every((piece) => piece instanceof Uint8Array);
}
