import { describe, expect, test } from 'vitest';
import { PRESENT_V2_STATE_SIZE, presentV2, type PresentV2Options } from '../../src/bridge/index.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { failure, outcome } from '../support/errno.ts';
import { readSome } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const buffers = [noise(3000, 1), noise(70, 2), noise(20_000, 3)];

/** A bridge that is replaced by a new object over the same memory whenever it is asked for. */
function replaced(tape: TapeV1, options: PresentV2Options): () => V2Device {
  const state = new Uint8Array(PRESENT_V2_STATE_SIZE);
  const carry = new Uint8Array(tape.section.length);
  return () => presentV2(tape.device, { ...options, state, carry });
}

describe.each(['raw', 'framed'] as const)('presentV2 state memory, %s', (segmentation) => {
  test('lets a new object go on anywhere in a save and anywhere in a restore', () => {
    const source = replaced(new TapeV1({ preCopy: buffers.slice(0, 2), stopCopy: buffers.slice(2) }), { segmentation });
    source().setState(V2.PRE_COPY);
    const pieces = [readSome(source().openSession(), 999)];
    source().openSession()?.precopyInfo();
    source().setState(V2.STOP_COPY);
    for (;;) {
      const piece = readSome(source().openSession(), 999);
      if (piece.length === 0) break;
      pieces.push(piece);
    }
    source().setState(V2.STOP);

    const tape = new TapeV1();
    const target = replaced(tape, { segmentation });
    target().setState(V2.RESUMING);
    for (const piece of cut(join(pieces), [5, 1000])) {
      expect(target().openSession()?.write(piece)).toBe(piece.length);
    }
    target().setState(V2.RUNNING);
    expect(tape.loaded).toBeBytes(buffers);
    if (segmentation === 'framed') expect(tape.loaded.map((bytes) => bytes.length)).toEqual([3000, 70, 20_000]);
  });
});

describe('presentV2 state memory', () => {
  test('remembers a stop that is shown over 4, what a driver has refused, a P2P state and how much is left', () => {
    const tape = new TapeV1();
    const held = replaced(tape, {});
    held().setState(V2.RESUMING);
    held().setState(V2.STOP);
    expect(held().getState()).toBe(V2.STOP);
    held().setState(V2.RUNNING);
    expect(tape.state).toBe(1);
    held().setState(V2.STOP);
    tape.refusals.set('0 2', { error: failure('EINVAL'), always: true });
    expect(outcome(() => held().setState(V2.STOP_COPY))).toBe('EINVAL');
    held().setState(V2.RUNNING);
    held().setState(V2.STOP);
    expect([held().getState(), tape.state]).toEqual([V2.STOP, 2]);

    const p2p = replaced(new TapeV1({ stopCopy: [noise(500)] }), { offerP2P: true });
    p2p().setState(V2.RUNNING_P2P);
    expect(p2p().getState()).toBe(V2.RUNNING_P2P);
    p2p().setState(V2.PRE_COPY_P2P);
    expect(p2p().getState()).toBe(V2.PRE_COPY_P2P);
    readSome(p2p().openSession(), 10);
    expect(p2p().stopCopyLength()).toBe(490);
  });

  test('keeps the handles of former sessions dead', () => {
    const bridge = replaced(new TapeV1({ stopCopy: [noise(500)] }), {});
    const old = bridge().setState(V2.STOP_COPY);
    bridge().setState(V2.STOP);
    bridge().setState(V2.STOP_COPY);
    expect(outcome(() => old?.read(new Uint8Array(1)))).toBe('ENODEV');
  });

  test('that is too small is refused', () => {
    expect(() => presentV2(new TapeV1().device, { state: new Uint8Array(PRESENT_V2_STATE_SIZE - 1) })).toThrow(
      RangeError,
    );
  });
});
