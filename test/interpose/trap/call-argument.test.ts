import { expect, it } from 'vitest';
import { CallArgument } from '../../../src/interpose/trap/call-argument.ts';
import { outcome } from '../../support/errno.ts';
import { GuardedMemory, selfIoctl } from '../../support/self-call.ts';
import { BAD_ADDRESS, FILLER } from '../../support/user-memory.ts';

const memory = new GuardedMemory();

it('the argument of a trapped ioctl lies in the memory of its caller', () => {
  const argument = new CallArgument(selfIoctl(0, memory.put(Uint8Array.of(1, 2, 3, 4)), 7n));
  expect([argument.id, argument.read(3)]).toEqual([7n, Uint8Array.of(1, 2, 3)]);
  argument.write(Uint8Array.of(8, 9), 2);
  expect([...memory.end(4)]).toEqual([1, 2, 8, 9]);
  argument.writeAt(BigInt(memory.address), Uint8Array.of(5));
  expect([...memory.bytes.subarray(0, 2)]).toEqual([5, FILLER]);
  expect([...argument.readAt(BigInt(memory.address), 2)]).toEqual([5, FILLER]);
  const refused = [
    () => argument.readAt(BAD_ADDRESS, 1),
    () => argument.readAt(2n ** 64n - 8n, 8),
    () => argument.read(5),
    () => argument.write(new Uint8Array(2), 3),
    () => argument.writeAt(BAD_ADDRESS, new Uint8Array(1)),
    () => argument.writeAt(2n ** 64n - 8n, new Uint8Array(1)),
    () => new CallArgument(selfIoctl(0, BAD_ADDRESS)).read(1),
    () => new CallArgument(selfIoctl(0, -1)).read(1),
  ];
  expect(refused.map(outcome)).toEqual(refused.map(() => 'EFAULT'));
});

it('may be a number', () => {
  const value = (argument: number | bigint): number => new CallArgument(selfIoctl(0, argument)).value;
  expect([value(3), value(2 ** 32 + 3), value(-1)]).toEqual([3, 2 ** 32 + 3, Infinity]);
});
