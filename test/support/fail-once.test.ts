import { expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { failure, notYet, outcome } from './errno.ts';
import { failOnce } from './fail-once.ts';
import { newVmm, oldVmm } from './presented.ts';
import { readRegister } from './v1-user.ts';

test('failOnce fails the next access of a register, and leaves the spy what it was told', () => {
  const { spy } = newVmm();
  const seen: string[] = [];
  spy.options = { mapped: false, before: (_, what) => void seen.push(what) };
  failOnce(spy, 'data_size', notYet());
  readRegister(spy, 'pending_bytes');
  expect(outcome(() => readRegister(spy, 'data_size'))).toBe('EAGAIN');
  expect(outcome(() => readRegister(spy, 'data_size'))).toBe('OK');
  expect([seen, spy.mapped]).toEqual([['pending_bytes', 'data_size', 'data_size'], undefined]);
});

test('failOnce fails the next call, twice where told twice', () => {
  const { spy } = oldVmm();
  failOnce(spy, 'reset', failure('EBUSY'));
  failOnce(spy, 'reset', failure('EIO'));
  expect(outcome(() => spy.setState(V2.RUNNING))).toBe('OK');
  expect(['first', 'second', 'third'].map(() => outcome(() => spy.reset()))).toEqual(['EBUSY', 'EIO', 'OK']);
});
