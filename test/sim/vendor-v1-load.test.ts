import { describe, expect, test } from 'vitest';
import { V1 } from '../../src/v1/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { v1Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const spec = 'vendor-v1,size=64K,section=16K';

function saved(text: string): Uint8Array[] {
  const user = v1User(v1Sim(text).device);
  user.setState(V1.STOP_COPY);
  return user.drain();
}

const buffers = saved(`${spec},seed=3`);
const memory = v1Sim(`${spec},seed=3`).bar;

function resuming(text = spec): {
  user: ReturnType<typeof v1User>;
  bar: Uint8Array;
  device: ReturnType<typeof v1Sim>['device'];
} {
  const { device, bar } = v1Sim(text);
  const user = v1User(device);
  user.setState(V1.RESUMING);
  return { user, bar, device };
}

describe('sim vendor-v1, resuming', () => {
  test.each([[1], [31], [32], [33, 1], [4096], [16_384], [5, 9000, 1]])(
    'takes transactions of %j bytes',
    (...sizes) => {
      const { user, bar } = resuming();
      for (const piece of cut(join(buffers), sizes)) user.load(piece);
      user.setState(V1.RUNNING);
      expect(bar).toBeBytes(memory);
    },
  );

  test('without its end the state is incomplete: neither 0 nor 1 is taken, and the rest can follow', () => {
    const { user, bar } = resuming();
    for (const buffer of buffers.slice(0, -1)) user.load(buffer);
    for (const state of [0, 1]) {
      expect(thrownBy(() => user.setState(state))).toMatchObject({ errno: 'EINVAL' });
      expect(user.state()).toBe(V1.RESUMING);
    }
    user.load(buffers.at(-1) ?? new Uint8Array(0));
    user.setState(V1.STOP);
    expect(bar).toBeBytes(memory);
  });

  test.each([
    ['of another compatibility number', `${spec},compat=2`],
    ['of a higher version', `${spec},version=2`],
    ['of another size', 'vendor-v1,size=60K,section=16K'],
  ])('refuses the state %s with its first transaction', (_, source) => {
    const { user, bar } = resuming(`${spec},seed=8`);
    expect(outcome(() => user.load(saved(source)[0] ?? new Uint8Array(0)))).toBe('EINVAL');
    expect(bar).toBeBytes(v1Sim(`${spec},seed=8`).bar);
  });

  test('takes a lower version', () => {
    const { user } = resuming(`${spec},version=3`);
    for (const buffer of saved(`${spec},version=2`)) user.load(buffer);
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('OK');
  });

  test('refuses what does not begin with a header, is no record, or follows the end', () => {
    expect(outcome(() => resuming().user.load(buffers[1] ?? new Uint8Array(0)))).toBe('EINVAL');
    expect(outcome(() => resuming().user.load(noise(32)))).toBe('EINVAL');
    const { user } = resuming();
    for (const buffer of buffers) user.load(buffer);
    expect(outcome(() => user.load(buffers[0] ?? new Uint8Array(0)))).toBe('EINVAL');
  });

  test.each([
    ['beyond the memory', 65_536n, 1n],
    ['across its end', 65_535n, 2n],
    ['of no length', 0n, 0n],
    ['that wrap around', 2n ** 64n - 1n, 2n],
  ])('refuses pages %s', (_, offset, length) => {
    const { user } = resuming();
    user.load(buffers[0] ?? new Uint8Array(0));
    const pages = Buffer.from((buffers[1] ?? new Uint8Array(0)).slice(0, 32));
    pages.writeBigUInt64LE(offset, 16);
    pages.writeBigUInt64LE(length, 24);
    expect(outcome(() => user.load(pages))).toBe('EINVAL');
  });

  test('begins anew with each entry of 4', () => {
    const { user, bar, device } = resuming();
    for (const buffer of buffers) user.load(buffer.map((byte, at) => (at < 32 ? byte : byte ^ 0xff)));
    device.reset();
    user.setState(V1.RESUMING);
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EINVAL');
    for (const buffer of buffers) user.load(buffer);
    user.setState(V1.RUNNING);
    expect(bar).toBeBytes(memory);
  });

  test.each([0, 1, 2, 3])('refuses data_size in state %i', (state) => {
    const { device } = v1Sim(spec);
    if (state !== 1) v1User(device).setState(state);
    expect(outcome(() => writeRegister(device, 'data_size', 32))).toBe('EINVAL');
  });
});

describe('sim vendor-v1,strict=1', () => {
  const strict = `${spec},strict=1`;

  test('takes the transactions of its source', () => {
    const { user, bar } = resuming(strict);
    for (const buffer of buffers) user.load(buffer);
    user.setState(V1.RUNNING);
    expect(bar).toBeBytes(memory);
  });

  test.each([
    ['two records in one', (): Uint8Array => join(buffers.slice(0, 2).map((buffer) => buffer.subarray(0, 8000)))],
    ['a part of a record', (): Uint8Array => (buffers[0] ?? new Uint8Array(0)).subarray(0, 31)],
    ['nothing', (): Uint8Array => new Uint8Array(0)],
  ])('refuses %s', (_, transaction) => {
    const { user } = resuming(strict);
    expect(outcome(() => user.load(transaction()))).toBe('EINVAL');
  });

  test('refuses pages whose data comes in a transaction of its own', () => {
    const { user } = resuming(strict);
    const [header, pages] = buffers as [Uint8Array, Uint8Array];
    user.load(header);
    expect(outcome(() => user.load(pages.subarray(0, 32)))).toBe('EINVAL');
  });
});
