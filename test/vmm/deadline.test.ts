import { expect, it } from 'vitest';
import { fulfilled, PATIENCE, poll, within } from '../../src/vmm/deadline.ts';

const SHORT = 30 / PATIENCE;
const LONG = 20_000;
const never = new Promise<never>(() => {});

it('within is what the promise is, if that comes in time', async () => {
  expect(await within(Promise.resolve(7), LONG, 'a number')).toBe(7);
  await expect(within(Promise.reject(new Error('no')), LONG, 'a number')).rejects.toThrow('no');
});

it('within says what it has waited for, as it is by then', async () => {
  let seen = 'nothing yet';
  const waiting = within(never, SHORT, () => `a state, saw ${seen}`);
  seen = 'another';
  await expect(waiting).rejects.toMatchObject({
    code: 'ERR_TARGET',
    message: 'timed out after 0.03 s: a state, saw another',
  });
});

it('poll asks until there is an answer', async () => {
  let asked = 0;
  expect(await poll(() => ((asked += 1) === 3 ? 'yes' : undefined), LONG, 'an answer', 1)).toBe('yes');
  expect(asked).toBe(3);
});

it('poll asks once, however short the time, and says what it has waited for', async () => {
  expect(await poll(() => 'yes', 0, 'an answer')).toBe('yes');
  await expect(poll(() => undefined, 0, 'an answer')).rejects.toThrow('timed out after 0 s: an answer');
});

it('poll ends with the first failure to ask', async () => {
  await expect(poll(() => Promise.reject(new Error('it is gone')), LONG, 'an answer')).rejects.toThrow('it is gone');
});

it('fulfilled says whether a promise was, in time', async () => {
  expect(await fulfilled(Promise.resolve(), LONG)).toBe(true);
  expect(await fulfilled(Promise.reject(new Error('no')), LONG)).toBe(false);
  expect(await fulfilled(never, SHORT)).toBe(false);
});
