import { expect, test } from 'vitest';
import { vfio_info_cap_header } from '../../../src/abi/vfio-device.ts';
import { capabilities } from '../../../src/vfio/client/capabilities.ts';

/** Bytes with a header at each place, which names its own place as id and the next place. */
function chain(length: number, ...places: readonly [at: number, next: number][]): Uint8Array {
  const bytes = new Uint8Array(length);
  for (const [at, next] of places) vfio_info_cap_header.encode({ id: at, version: 1, next }, bytes, at);
  return bytes;
}

test.each<[string, Uint8Array, number, number[]]>([
  ['forward', chain(80, [32, 48], [48, 72], [72, 0]), 32, [32, 48, 72]],
  ['to a header that ends with the bytes', chain(40, [32, 0]), 32, [32]],
  ['to a header that is cut', chain(40, [32, 0]).subarray(0, 39), 32, []],
  ['to itself', chain(80, [32, 32]), 32, [32]],
  ['back', chain(80, [16, 48], [48, 16]), 48, [48]],
  ['nowhere', chain(80, [0, 32], [32, 0]), 0, []],
])('a chain of capabilities is followed that leads %s', (_, bytes, first, found) => {
  expect([...capabilities(bytes, first)]).toEqual(found.map((at) => [at, at]));
});
