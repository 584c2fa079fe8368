import { describe, expect, test } from 'vitest';
import { PRESENT_V2_LIVE_SIZE } from '../../src/bridge/present-v2-state.ts';
import { PRESENT_V2_STATE_SIZE, presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { everyAccess, KilledMachine, type Kill, type Memory } from '../support/killed-machine.ts';
import { TapeV1 } from '../support/tape-v1.ts';
import { ThreadedTape } from '../support/threaded-tape.ts';

/*
 * A driver of the kernel whose accesses a thread waits for: each is "under way" as long as it likes, its call is repeated, and the
 * supervisor may be killed at any of them. The driver then ends what it was asked, and nobody is told the result.
 */

const buffers = [noise(3000, 1), noise(70, 2), noise(9000, 3), noise(1, 4)];

interface On {
  readonly machine: KilledMachine<V2Device>;
  readonly threaded: ThreadedTape;
}

/** `repeats`: how often each call is repeated until its access has ended. */
function on(tape: TapeV1, repeats: number, kill: Omit<Kill, 'mapped'>): On {
  const threaded = new ThreadedTape(tape, repeats);
  const carry = new Uint8Array(tape.section.length);
  const sizes = { state: PRESENT_V2_STATE_SIZE, live: PRESENT_V2_LIVE_SIZE };
  const present = (driver: V1Device, memory: Memory): V2Device =>
    presentV2(driver, { ...memory, carry, offerP2P: true });
  return { machine: new KilledMachine(threaded, { ...kill, mapped: false }, sizes, present), threaded };
}

const NEVER = { at: 0, after: false };

/** A call of the VMM's, which waits and is repeated. */
function call<T>({ machine, threaded }: On, act: (device: V2Device) => T): T {
  threaded.nextCall();
  return machine.call((device) => threaded.untilDone(() => act(device)));
}

function save(from: On, way: readonly V2State[]): Uint8Array[] {
  const { machine, threaded } = from;
  const pieces: Uint8Array[] = [];
  const to = (state: V2State): void => call(from, (device) => void device.setState(state));
  const read = (): number => {
    const into = new Uint8Array(4096);
    const length = call(from, (device) => device.openSession()?.read(into) ?? 0);
    pieces.push(into.subarray(0, length));
    threaded.goAhead();
    machine.aside((device) => device.openSession()?.readAhead?.());
    return length;
  };
  to(V2.PRE_COPY);
  read();
  call(from, (device) => device.openSession()?.precopyInfo());
  for (const state of way) to(state);
  while (read() > 0);
  to(V2.STOP);
  return pieces;
}

/** True where all of it was taken, false where the VMM was told of an error. */
function restore(into: On): boolean {
  const all = Buffer.concat(buffers);
  const answer = outcome(() => {
    call(into, (device) => void device.setState(V2.RESUMING));
    for (let at = 0; at < all.length;) {
      at += call(into, (device) => device.openSession()?.write(all.subarray(at, at + 1500)) ?? Number.NaN);
    }
    call(into, (device) => void device.setState(V2.RUNNING));
  });
  if (answer === 'OK') return true;
  expect(answer).toBe('EIO');
  return false;
}

const source = (): TapeV1 => new TapeV1({ preCopy: buffers.slice(0, 2), stopCopy: buffers.slice(2), section: 10_000 });
const destination = (): TapeV1 => new TapeV1({ section: 2600 });

describe.each([1, 2])('presentV2 over a v1 driver that a thread waits for, calls repeated %i times', (repeats) => {
  test.each([
    [false, [V2.STOP_COPY]],
    [true, [V2.STOP_COPY]],
    [true, [V2.PRE_COPY_P2P, V2.STOP_COPY]],
  ])('loses and doubles nothing of a save, killed at any access, begun: %s; states %j', (after, way) => {
    const calm = on(source(), repeats, NEVER);
    const accesses = everyAccess(calm.machine, () => expect(save(calm, way)).toBeBytes(buffers));
    expect(calm.threaded.waited, 'accesses that were under way').toBeGreaterThan(6);
    for (const at of accesses) {
      expect(save(on(source(), repeats, { at, after }), way), `killed at ${at}`).toBeBytes(buffers);
    }
  });

  test.each([false, true])('takes each byte once, or says EIO, killed at any access, begun: %s', (after) => {
    const calm = on(destination(), repeats, NEVER);
    const accesses = everyAccess(calm.machine, () => expect(restore(calm)).toBe(true));
    expect(calm.threaded.tape.loaded).toBeBytes(buffers);
    expect(calm.threaded.waited, 'accesses that were under way').toBeGreaterThan(2);
    let refused = 0;
    for (const at of accesses) {
      const tape = destination();
      if (restore(on(tape, repeats, { at, after }))) expect(tape.loaded, `killed at ${at}`).toBeBytes(buffers);
      else refused += 1;
    }
    expect(refused).toBeGreaterThan(0);
    expect(refused).toBeLessThan(accesses.length / 2);
  });
});
