import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { cut, join } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v1Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const SECTION = 8192;
const SIZE = 20_000;
const RECORD = 32;
const spec = `nvidia-v1,size=${SIZE},section=${SECTION}`;

function opened(text = `${spec},seed=3`) {
  const sim = v1Sim(text);
  const mapped = sim.device.mapped ?? new Uint8Array(0);
  return { ...sim, mapped, user: v1User(sim.device) };
}
type Opened = ReturnType<typeof opened>;

/** The buffers that are left, taken by data_size and read by mmap. */
function drained({ user, mapped }: Opened): Uint8Array[] {
  const buffers: Uint8Array[] = [];
  while (user.pending() > 0) buffers.push(mapped.slice(0, user.size()));
  return buffers;
}

function saved(text?: string): Uint8Array[] {
  const sim = opened(text);
  sim.user.setState(2);
  return drained(sim);
}

function load({ mapped, device }: Opened, bytes: Uint8Array): void {
  mapped.set(bytes);
  writeRegister(device, 'data_size', bytes.length);
}

describe('sim nvidia-v1', () => {
  test('fetches a buffer with pending_bytes, and keeps it until data_size takes it', () => {
    const { user, mapped } = opened();
    user.setState(2);
    expect([user.pending(), user.pending(), user.pending()]).toEqual([RECORD, RECORD, RECORD]);
    expect(mapped.subarray(0, RECORD)).toEqual(new Uint8Array(RECORD));
    expect([user.offset(), user.size(), user.size()]).toEqual([DATA_OFFSET, RECORD, RECORD]);
    expect(mapped.subarray(0, RECORD)).not.toEqual(new Uint8Array(RECORD));
    expect(user.pending()).toBe(SECTION);
  });

  test('ends with pending_bytes 0, and has the whole memory', () => {
    const buffers = saved();
    expect(buffers.map(({ length }) => length)).toEqual([
      RECORD,
      SECTION,
      SECTION,
      SIZE - 2 * (SECTION - RECORD) + RECORD,
      RECORD,
    ]);
    const { bar } = opened();
    expect(join(buffers.slice(1, -1).map((buffer) => buffer.subarray(RECORD)))).toBeBytes(bar);
  });

  test('says in pre-copy how much is left in all as long as buffers are full', () => {
    const { user } = opened();
    user.setState(3);
    const pending: number[] = [];
    for (let next = user.pending(); next > 0; next = user.pending()) {
      pending.push(next);
      user.size();
    }
    const rest = SIZE - 2 * (SECTION - RECORD) + RECORD;
    expect(pending).toEqual([RECORD, SECTION + SIZE, SECTION + SIZE - (SECTION - RECORD), rest]);
  });

  test('sends in stop-and-copy what has changed since pre-copy', () => {
    const sim = opened();
    sim.user.setState(3);
    const before = drained(sim);
    sim.bar.fill(7, 5000, 5010);
    sim.user.setState(2);
    const after = drained(sim);
    expect(after.map(({ length }) => length)).toEqual([4096 + RECORD, RECORD]);
    const destination = opened(spec);
    destination.user.setState(4);
    for (const buffer of [...before, ...after]) load(destination, buffer);
    destination.user.setState(1);
    expect(destination.bar).toBeBytes(sim.bar);
  });

  test('gives garbage to a trapped read of data, and refuses a trapped write: EFAULT', () => {
    const { device, user, mapped } = opened();
    user.setState(2);
    user.pending();
    const into = new Uint8Array(user.size());
    device.read(DATA_OFFSET, into);
    expect(into).not.toEqual(mapped.subarray(0, into.length));
    expect(outcome(() => device.write(DATA_OFFSET, into))).toBe('EFAULT');
  });

  test.each([[1], [33, 1], [4096]])('loads transactions of %j bytes as they come', (...sizes) => {
    const sim = opened(spec);
    sim.user.setState(4);
    for (const piece of cut(join(saved()), sizes)) load(sim, piece);
    expect(sim.bar).toBeBytes(opened().bar);
    sim.user.setState(1);
  });

  test('refuses the state of another device, and one that is incomplete: EFAULT', () => {
    const sim = opened(spec);
    sim.user.setState(4);
    expect(outcome(() => load(sim, saved(`${spec},compat=2`)[0] ?? new Uint8Array(0)))).toBe('EFAULT');
    const other = opened(spec);
    other.user.setState(4);
    for (const buffer of saved().slice(0, -1)) load(other, buffer);
    expect([outcome(() => other.user.setState(1)), other.user.state()]).toEqual(['EFAULT', 4]);
  });

  test('tells nobody of a write of 0: not of the end of a load, nor that the device is to stop', () => {
    const sim = opened(spec);
    sim.user.setState(4);
    load(sim, saved()[0] ?? new Uint8Array(0));
    expect([outcome(() => sim.user.setState(0)), sim.user.state()]).toEqual(['OK', 0]);
    expect([outcome(() => sim.user.setState(1)), sim.user.state()]).toEqual(['EFAULT', 0]);
    const { user } = opened();
    user.setState(3);
    user.pending();
    user.setState(0);
    user.setState(2);
    expect(user.pending()).toBe(RECORD); // the plugin goes on from pre-copy
  });

  test('refuses all else with EFAULT', () => {
    const { device, user } = opened();
    for (const value of [5, 6, 7, 8]) expect(outcome(() => user.setState(value))).toBe('EFAULT');
    expect(outcome(() => device.read(9, new Uint8Array(8)))).toBe('EFAULT');
    expect(outcome(() => writeRegister(device, 'data_offset', 1))).toBe('EFAULT');
    expect(outcome(() => writeRegister(device, 'data_size', 1))).toBe('EFAULT');
  });

  test('fetches after as many waits as it is told, and fails where it is told to', () => {
    const { user } = opened(`${spec},block=2,fault=read@1:EIO`);
    user.setState(2);
    const answers = [1, 2, 3, 4, 5, 6].map(() => outcome(user.pending));
    expect(answers).toEqual(['EAGAIN', 'EAGAIN', 'EIO', 'EAGAIN', 'EAGAIN', 'OK']);
    expect(outcome(user.pending)).toBe('OK');
  });
});
