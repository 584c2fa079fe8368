import { describe, expect, test } from 'vitest';
import { presentV2 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome, sometimes } from '../support/errno.ts';
import { newVmm } from '../support/presented.ts';
import { v1Sim } from '../support/sims.ts';
import { v1User } from '../support/v1-user.ts';

const state = noise(200_000);
const SECTION = 65_536;

/** Writes everything, as a VMM does whose write() may be short or not ready. */
function writeAll(session: V2DataSession, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    const answer = outcome(() => {
      at += session.write(bytes.subarray(at));
    });
    if (answer !== 'OK') expect(answer).toBe('EAGAIN');
  }
}

describe('presentV2 write, raw', () => {
  test.each([[1], [100], [65_535], [65_536], [65_537], [200_000], [1, 70_000, 13]])(
    'in pieces of %j: a transaction per full data section, the rest when RESUMING is left',
    (...sizes) => {
      const { tape, device, begin } = newVmm();
      const session = begin(V2.RESUMING);
      for (const piece of cut(state, sizes)) writeAll(session, piece);
      expect(tape.loaded.map((bytes) => bytes.length)).toEqual([SECTION, SECTION, SECTION]);
      device.setState(V2.RUNNING);
      expect(tape.loaded.map((bytes) => bytes.length)).toEqual([SECTION, SECTION, SECTION, 200_000 - 3 * SECTION]);
      expect(tape.loaded).toBeBytes(state);
      expect(tape.states).toEqual([4, 1]);
    },
  );

  test('a state that fills the data section exactly leaves no empty transaction', () => {
    const { tape, device, begin } = newVmm();
    writeAll(begin(V2.RESUMING), state.subarray(0, 2 * SECTION));
    device.setState(V2.STOP);
    expect(tape.loaded.map((bytes) => bytes.length)).toEqual([SECTION, SECTION]);
  });

  test('goes through the v1 registers in the order of the protocol', () => {
    const { spy, device, begin } = newVmm();
    spy.options = { mapped: false };
    const session = begin(V2.RESUMING);
    spy.log.length = 0;
    session.write(state.subarray(0, 1000));
    session.write(state.subarray(1000, 1500));
    device.setState(V2.RUNNING);
    expect(spy.log.filter((line) => !line.startsWith('read device_state'))).toEqual([
      `read data_offset ${DATA_OFFSET}`,
      `write data ${DATA_OFFSET}+1000`,
      `write data ${DATA_OFFSET + 1000}+500`,
      'write data_size 1500',
      'write device_state 1',
    ]);
  });

  test('of 0 bytes takes 0 and does nothing', () => {
    const { tape, spy, begin } = newVmm();
    const session = begin(V2.RESUMING);
    spy.log.length = 0;
    expect(session.write(new Uint8Array(0))).toBe(0);
    expect(tape.loaded).toEqual([]);
    expect(spy.log.filter((line) => !line.startsWith('read device_state'))).toEqual([]);
  });

  test('in place: what is mapped of the space is offered, as much as there is and as is asked for', () => {
    const { tape, spy, device, begin } = newVmm();
    const session = begin(V2.RESUMING);
    const put = (bytes: Uint8Array): void => {
      session.room?.(bytes.length)?.set(bytes);
      session.fill?.(bytes.length);
    };
    put(state.subarray(0, 1000));
    expect(session.room?.(500)).toHaveLength(500);
    expect(session.room?.(SECTION)).toHaveLength(SECTION - 1000);
    put(state.subarray(1000, SECTION));
    put(state.subarray(SECTION, SECTION + 10));
    device.setState(V2.RUNNING);
    expect(tape.loaded.map((bytes) => bytes.length)).toEqual([SECTION, 10]);
    expect(tape.loaded).toBeBytes(state.subarray(0, SECTION + 10));
    expect(spy.log.filter((line) => line.startsWith('write data '))).toEqual([]);
  });

  test('in place: a transaction that is refused with its last byte is refused for good', () => {
    const { tape, device, begin } = newVmm();
    tape.onLoad = () => {
      tape.onLoad = undefined;
      throw failure('EREMOTEIO');
    };
    const session = begin(V2.RESUMING);
    session.room?.(SECTION)?.fill(1);
    expect(outcome(() => session.fill?.(SECTION))).toBe('EREMOTEIO');
    expect(outcome(() => session.room?.(1))).toBe('EREMOTEIO');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EREMOTEIO');
    expect(tape.loaded).toEqual([]);
  });

  test('what is shown behind the registers only is used from there on', () => {
    const { tape, device, begin } = newVmm();
    tape.lies = { offset: DATA_OFFSET + SECTION - 100 };
    const session = begin(V2.RESUMING);
    expect(session.write(state.subarray(0, 250))).toBe(100);
    expect(device.getState()).toBe(V2.RESUMING);
    expect(tape.loaded).toHaveLength(1);
  });

  test('an error of a full transaction is the errno of the write that filled it', () => {
    const { tape, begin } = newVmm();
    tape.onLoad = () => {
      throw failure('EFAULT');
    };
    const session = begin(V2.RESUMING);
    expect(session.write(state.subarray(0, SECTION - 1))).toBe(SECTION - 1);
    expect(outcome(() => session.write(state.subarray(SECTION - 1, SECTION)))).toBe('EFAULT');
  });

  // mlx5, virtio, QAT and mtty of Linux 6.12 let RESUMING end successfully after a write of data that they refused
  test.each(['STOP', 'RUNNING', 'PRE_COPY'] as const)(
    'a refused transaction stays refused: later writes and the way out to %s fail with its errno, until a reset',
    (out) => {
      const { tape, device, begin } = newVmm();
      tape.onLoad = () => {
        tape.onLoad = undefined;
        throw failure('EREMOTEIO');
      };
      const session = begin(V2.RESUMING);
      expect(outcome(() => session.write(state.subarray(0, SECTION)))).toBe('EREMOTEIO');
      expect(outcome(() => session.write(state.subarray(0, 10)))).toBe('EREMOTEIO');
      expect(outcome(() => session.room?.(10))).toBe('EREMOTEIO');
      for (const _ of [1, 2]) expect(outcome(() => device.setState(V2[out]))).toBe('EREMOTEIO');
      expect([device.getState(), tape.state, tape.loaded.length]).toEqual([V2.RESUMING, 4, 0]);
      device.reset();
      begin(V2.RESUMING).write(state.subarray(0, 10));
      device.setState(V2.RUNNING);
      expect(join(tape.loaded)).toEqual(state.subarray(0, 10));
    },
  );

  test('bytes that could not be put into the data section are missing: the way out fails', () => {
    const { spy, device, begin } = newVmm();
    const session = begin(V2.RESUMING);
    spy.options = {
      mapped: false,
      before: (access, what) => {
        if (access === 'write' && what === 'data') throw failure('EREMOTEIO');
      },
    };
    expect(outcome(() => session.write(state.subarray(0, 10)))).toBe('EREMOTEIO');
    spy.options = {};
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EREMOTEIO');
    expect(device.getState()).toBe(V2.RESUMING);
  });

  test('an error of the last transaction is the errno of leaving RESUMING, which stays', () => {
    const { tape, device, begin } = newVmm();
    tape.onLoad = () => {
      tape.onLoad = undefined;
      throw failure('ENOSPC');
    };
    begin(V2.RESUMING).write(state.subarray(0, 10));
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('ENOSPC');
    expect([device.getState(), tape.state]).toEqual([V2.RESUMING, 4]);
  });

  test('an abandoned session leaves nothing for the next', () => {
    const { tape, device, begin } = newVmm();
    begin(V2.RESUMING).write(state.subarray(0, 10));
    device.reset();
    const session = begin(V2.RESUMING);
    session.write(state.subarray(10, 30));
    device.setState(V2.RUNNING);
    expect(join(tape.loaded)).toEqual(state.subarray(10, 30));
  });

  test('answers ENODEV after a reset behind the user', () => {
    const { tape, begin } = newVmm();
    const session = begin(V2.RESUMING);
    session.write(state.subarray(0, 10));
    tape.reset();
    expect(outcome(() => session.write(state.subarray(0, 10)))).toBe('ENODEV');
    expect(tape.loaded).toEqual([]);
  });
});

describe('presentV2 EAGAIN while resuming', () => {
  test.each([[100], [65_536], [70_000, 3]])(
    'at any access, pieces of %j: repeating loses and doubles nothing',
    (...sizes) => {
      const { tape, spy, device, begin } = newVmm();
      const session = begin(V2.RESUMING);
      spy.options = { before: sometimes(7) };
      for (const piece of cut(state, sizes)) writeAll(session, piece);
      while (outcome(() => device.setState(V2.RUNNING)) === 'EAGAIN');
      spy.options = {};
      expect(device.getState()).toBe(V2.RUNNING);
      expect(tape.loaded.map((bytes) => bytes.length)).toEqual([SECTION, SECTION, SECTION, 200_000 - 3 * SECTION]);
      expect(tape.loaded).toBeBytes(state);
    },
  );

  test('of a full transaction: its bytes count as taken, the next call finishes it first', () => {
    const { tape, begin } = newVmm();
    let times = 2;
    tape.onLoad = () => {
      times -= 1;
      if (times >= 0) throw notYet();
    };
    const session = begin(V2.RESUMING);
    expect(session.write(state.subarray(0, SECTION))).toBe(SECTION);
    expect(outcome(() => session.write(state.subarray(SECTION, SECTION + 1)))).toBe('EAGAIN');
    expect(session.write(state.subarray(SECTION, SECTION + 1))).toBe(1);
    expect(tape.loaded).toBeBytes(state.subarray(0, SECTION));
  });
});

describe('presentV2 of vendor-v1', () => {
  test('an incomplete state never runs: RESUMING to RUNNING is EINVAL, and can be completed', () => {
    const source = v1Sim('vendor-v1,size=64K,section=16K,seed=3');
    const saving = v1User(source.device);
    saving.setState(V1.STOP_COPY);
    const stream = join(saving.drain());
    const target = v1Sim('vendor-v1,size=64K,section=16K');
    const presented = presentV2(target.device);
    const session = presented.setState(V2.RESUMING);
    if (session === undefined) throw new Error('no session');
    writeAll(session, stream.subarray(0, -40));
    expect(outcome(() => presented.setState(V2.RUNNING))).toBe('EINVAL');
    expect(presented.getState()).toBe(V2.RESUMING);
    writeAll(session, stream.subarray(-40));
    presented.setState(V2.RUNNING);
    expect(target.bar).toBeBytes(source.bar);
  });
});
