import { describe, expect, test } from 'vitest';
import { V2, v2StateName, type V2State, type V2StateName } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { newVmm, readSome, type NewVmm } from '../support/presented.ts';
import { QEMU_WROTE } from '../support/qemu-writes.ts';
import type { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const names = ['STOP', 'RUNNING', 'STOP_COPY', 'RESUMING', 'PRE_COPY'] as const;
type Name = (typeof names)[number];

/** What each v2 state is to a v1 driver. */
const v1Of: Readonly<Record<V2StateName, number>> = {
  ERROR: 6,
  STOP: 0,
  RUNNING: 1,
  STOP_COPY: 2,
  RESUMING: 4,
  PRE_COPY: 3,
  RUNNING_P2P: 0,
  PRE_COPY_P2P: 2,
};

type Ways = Readonly<Record<Name, Readonly<Partial<Record<Name, readonly number[]>>>>>;

/** The v1 writes of every transition; none where the kernel's state machine (flags 5) or a v1 driver has no way. */
const writes: Ways = {
  RUNNING: { RUNNING: [], STOP: [0], STOP_COPY: [3, 2], RESUMING: [4], PRE_COPY: [3] },
  STOP: { STOP: [], RUNNING: [1], STOP_COPY: [2], RESUMING: [4], PRE_COPY: [1, 3] },
  PRE_COPY: { PRE_COPY: [], RUNNING: [1], STOP_COPY: [2], STOP: [1, 0], RESUMING: [1, 4] },
  STOP_COPY: { STOP_COPY: [], STOP: [0], RUNNING: [1], RESUMING: [0, 4] },
  RESUMING: { RESUMING: [], STOP: [], RUNNING: [1], PRE_COPY: [1, 3] },
};

function at(name: V2StateName, options = {}): NewVmm {
  const vmm = newVmm(new TapeV1(), options);
  if (name !== 'RUNNING') vmm.device.setState(V2[name]);
  expect(v2StateName(vmm.device.getState())).toBe(name);
  vmm.tape.states.length = 0;
  return vmm;
}

/** What was written that no QEMU ever wrote. */
function changes(spy: SpyV1): string[] {
  return spy.changes.filter((change) => !QEMU_WROTE.has(change));
}

describe('presentV2 migrationFlags', () => {
  test('are STOP_COPY and PRE_COPY, and P2P where it is offered', () => {
    expect(newVmm().device.migrationFlags).toBe(5);
    expect(newVmm(new TapeV1(), { offerP2P: true }).device.migrationFlags).toBe(7);
    expect(newVmm(new TapeV1(), { offerP2P: false }).device.migrationFlags).toBe(5);
  });
});

describe('presentV2 setState', () => {
  const cases = names.flatMap((from) => names.map((to) => ({ from, to, expected: writes[from][to] })));
  test.each(cases)('$from to $to writes $expected', ({ from, to, expected }) => {
    const { device, tape, spy } = at(from);
    const old = device.openSession();
    let session: unknown;
    const result = outcome(() => {
      session = device.setState(V2[to]);
    });
    expect(result).toBe(expected === undefined ? 'EINVAL' : 'OK');
    expect(tape.states).toEqual(expected ?? []);
    expect(v2StateName(device.getState())).toBe(expected === undefined ? from : to);
    expect(changes(spy)).toEqual([]);
    const saving = (name: Name): boolean => name === 'PRE_COPY' || name === 'STOP_COPY';
    const begins = expected !== undefined && from !== to && (to === 'RESUMING' || (saving(to) && !saving(from)));
    expect(session !== undefined).toBe(begins);
    if (old !== undefined && saving(from) && (saving(to) || expected === undefined)) {
      expect(['OK', 'ENOMSG']).toContain(outcome(() => old.read(new Uint8Array(1))));
    }
  });

  test.each([0, 5, 7, 8, -1])('refuses state %i', (target) => {
    for (const from of names) {
      const { device, tape } = at(from);
      expect(outcome(() => device.setState(target as V2State))).toBe('EINVAL');
      expect([tape.states, v2StateName(device.getState())]).toEqual([[], from]);
    }
  });

  test('says that v1 shows ERROR, which only a reset leaves', () => {
    const { device, tape } = at('RUNNING');
    tape.refusals.set('1 3', { error: failure('EBUSY'), now: 6 });
    expect(outcome(() => device.setState(V2.PRE_COPY))).toBe('EBUSY');
    expect(device.getState()).toBe(V2.ERROR);
    for (const name of names) expect(outcome(() => device.setState(V2[name]))).toBe('EINVAL');
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
    expect(outcome(() => device.setState(V2.PRE_COPY))).toBe('OK');
  });

  test.each([
    ['RUNNING', 'STOP_COPY', '1 3', 'RUNNING'],
    ['RUNNING', 'STOP_COPY', '3 2', 'RUNNING'],
    ['RUNNING', 'PRE_COPY', '1 3', 'RUNNING'],
    ['STOP', 'PRE_COPY', '1 3', 'RUNNING'],
    ['PRE_COPY', 'STOP_COPY', '3 2', 'PRE_COPY'],
    ['PRE_COPY', 'STOP', '1 0', 'RUNNING'],
    ['STOP_COPY', 'RUNNING', '2 1', 'STOP_COPY'],
    ['STOP_COPY', 'RESUMING', '0 4', 'STOP'],
    ['STOP_COPY', 'STOP', '2 0', 'STOP_COPY'],
    ['RESUMING', 'RUNNING', '4 1', 'RESUMING'],
  ] as const)('%s to %s whose write %s fails: the errno, and the state is %s', (from, to, write, now) => {
    const { device, tape, warnings } = at(from);
    tape.refusals.set(write, { error: failure('EBUSY') });
    expect(outcome(() => device.setState(V2[to]))).toBe('EBUSY');
    expect([v2StateName(device.getState()), warnings]).toEqual([now, []]);
    const kept = now === 'PRE_COPY' || now === 'STOP_COPY' || now === 'RESUMING';
    expect(device.openSession() !== undefined).toBe(kept);
    device.setState(V2[to]);
    expect(v2StateName(device.getState())).toBe(to);
  });

  test('keeps the reserved bits of device_state', () => {
    const { device, tape } = at('RUNNING');
    tape.reserved = 0xffff_fff8;
    for (const name of ['PRE_COPY', 'STOP_COPY', 'STOP', 'RESUMING', 'RUNNING'] as const) device.setState(V2[name]);
    expect(tape.states).toEqual([3, 2, 0, 4, 1]);
  });
});

describe('presentV2 of a driver that takes no 0 to 2', () => {
  /** As libvfio-user's v1 servers: 1 and 3 lead to 2, 0 does not (lib/migration.c before September 2023). */
  const strict = (): TapeV1 => {
    const tape = new TapeV1({ stopCopy: [noise(100)] });
    tape.refusals.set('0 2', { error: failure('EINVAL'), always: true });
    return tape;
  };
  const bySaving: Ways = {
    RUNNING: { ...writes.RUNNING, STOP: [3, 2] },
    STOP: { STOP: [], RUNNING: [1], STOP_COPY: [], RESUMING: [0, 4], PRE_COPY: [1, 3] },
    PRE_COPY: { ...writes.PRE_COPY, STOP: [1, 3, 2] },
    STOP_COPY: writes.STOP_COPY,
    RESUMING: writes.RESUMING,
  };
  const cases = names.flatMap((from) => names.map((to) => ({ from, to, expected: bySaving[from][to] })));

  test.each(cases)('$from to $to writes $expected, where that is said beforehand', ({ from, to, expected }) => {
    const { device, tape, spy } = newVmm(strict(), { stopBySaving: true });
    if (from !== 'RUNNING') device.setState(V2[from]);
    tape.states.length = 0;
    expect(outcome(() => device.setState(V2[to]))).toBe(expected === undefined ? 'EINVAL' : 'OK');
    expect(tape.states).toEqual(expected ?? []);
    expect(v2StateName(device.getState())).toBe(expected === undefined ? from : to);
    expect(changes(spy)).toEqual([]);
  });

  test('the refusal is clear, changes nothing, and teaches: from then on a stopped device can be saved', () => {
    for (const errno of ['EINVAL', 'EFAULT'] as const) {
      const tape = strict();
      tape.refusals.set('0 2', { error: failure(errno), always: true });
      const { device, spy, begin } = newVmm(tape);
      device.setState(V2.STOP);
      expect(thrownBy(() => device.setState(V2.STOP_COPY))).toMatchObject({
        code: 'ERR_TRANSITION',
        errno: 'EINVAL',
        message: `device_state: this v1 driver refuses 0 to 2 (${errno}); from now on a stop is written as 3 and 2: let the device run, then ask again`,
      });
      expect([device.getState(), tape.state, device.openSession()]).toEqual([V2.STOP, 0, undefined]);
      spy.changes.length = 0;
      expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EINVAL'); // known by now: it is not asked again
      expect(spy.changes).toEqual([]);
      device.setState(V2.RUNNING);
      device.setState(V2.STOP);
      expect([device.getState(), tape.state, device.openSession()]).toEqual([V2.STOP, 2, undefined]);
      expect(readSome(begin(V2.STOP_COPY), 200)).toEqual(noise(100));
      device.setState(V2.STOP);
      device.setState(V2.RUNNING);
      expect(spy.changes).toEqual(['0>1', '1>3', '3>2', '2>0', '0>1']);
    }
  });

  test('another failure of 0 to 2 teaches nothing', () => {
    const tape = new TapeV1();
    tape.refusals.set('0 2', { error: failure('EBUSY') });
    const { device } = newVmm(tape);
    device.setState(V2.STOP);
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EBUSY');
    device.setState(V2.STOP_COPY);
    expect(device.getState()).toBe(V2.STOP_COPY);
  });

  test('with P2P offered, RUNNING_P2P is written as 3 and 2 as well, and PRE_COPY_P2P needs no write', () => {
    const { device, tape } = newVmm(strict(), { stopBySaving: true, offerP2P: true });
    device.setState(V2.RUNNING_P2P);
    expect([device.getState(), tape.state]).toEqual([V2.RUNNING_P2P, 2]);
    device.setState(V2.PRE_COPY_P2P);
    expect([device.getState(), tape.states]).toEqual([V2.PRE_COPY_P2P, [3, 2]]);
  });
});

describe('presentV2 of a driver that takes 0 after 4', () => {
  test.each([
    ['STOP', [0]],
    ['STOP_COPY', [0, 2]],
    ['RUNNING', [1]],
    ['PRE_COPY', [1, 3]],
  ] as const)('RESUMING to %s writes %j', (to, expected) => {
    const { device, tape } = at('RESUMING', { stopAfterLoad: true });
    device.setState(V2[to]);
    expect(tape.states).toEqual(expected);
    expect([v2StateName(device.getState()), tape.state]).toEqual([to, v1Of[to]]);
  });

  test('but no 0 to 2: a loaded device that has never run is not saved', () => {
    const { device, tape } = at('RESUMING', { stopAfterLoad: true, stopBySaving: true });
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EINVAL');
    expect([device.getState(), tape.states]).toEqual([V2.RESUMING, []]);
  });
});

describe('presentV2 getState', () => {
  test.each([
    [0, 'STOP'],
    [1, 'RUNNING'],
    [2, 'STOP_COPY'],
    [3, 'PRE_COPY'],
    [4, 'RESUMING'],
    [6, 'ERROR'],
  ])('shows device_state %i as %s, reserved bits aside', (shown, name) => {
    const { device, tape } = newVmm();
    tape.state = shown;
    tape.reserved = 0x80;
    expect(v2StateName(device.getState())).toBe(name);
  });

  test.each([5, 7])('a device_state of %i is EIO', (shown) => {
    const { device, tape } = newVmm();
    tape.state = shown;
    expect(outcome(() => device.getState())).toBe('EIO');
  });

  test('asks the driver: a reset behind the user ends the session, with a warning and ENODEV', () => {
    const { device, tape, begin, warnings } = newVmm(new TapeV1({ preCopy: [noise(10)] }));
    const session = begin(V2.PRE_COPY);
    readSome(session, 4);
    tape.reset();
    expect(outcome(() => session.read(new Uint8Array(4)))).toBe('ENODEV');
    expect([device.getState(), device.openSession()]).toEqual([V2.RUNNING, undefined]);
    expect(warnings).toEqual(['the data session has ended: the device is in RUNNING']);
  });
});

describe('presentV2 EAGAIN of a state write', () => {
  const cases = names.flatMap((from) =>
    names.flatMap((to) => {
      const path = [v1Of[from], ...(writes[from][to] ?? [])];
      return path.slice(1).map((hop, n) => ({ from, to, write: `${path[n]} ${hop}` }));
    }),
  );
  test.each(cases)('$from to $to, "not yet" at $write: repeating the request is enough', ({ from, to, write }) => {
    const { device, tape } = at(from);
    tape.refusals.set(write, { error: notYet() });
    expect(outcome(() => device.setState(V2[to]))).toBe('EAGAIN');
    device.setState(V2[to]);
    expect(v2StateName(device.getState())).toBe(to);
    const hasSession = to === 'PRE_COPY' || to === 'STOP_COPY' || to === 'RESUMING';
    expect(device.openSession() !== undefined).toBe(hasSession);
  });
});

describe('presentV2 offerP2P', () => {
  const p2p = { offerP2P: true };
  test.each<[V2StateName, V2StateName, readonly number[]]>([
    ['RUNNING', 'RUNNING_P2P', [0]],
    ['RUNNING_P2P', 'RUNNING', [1]],
    ['RUNNING_P2P', 'STOP', []],
    ['STOP', 'RUNNING_P2P', []],
    ['STOP', 'RUNNING', [1]],
    ['RUNNING', 'STOP', [0]],
    ['RUNNING', 'PRE_COPY', [3]],
    ['PRE_COPY', 'PRE_COPY_P2P', [2]],
    ['PRE_COPY_P2P', 'STOP_COPY', []],
    ['PRE_COPY_P2P', 'RUNNING_P2P', [0]],
    ['PRE_COPY_P2P', 'RUNNING', [1]],
    ['PRE_COPY_P2P', 'STOP', [0]],
    ['RUNNING_P2P', 'PRE_COPY_P2P', [2]],
    ['RUNNING', 'PRE_COPY_P2P', [3, 2]],
    ['RUNNING', 'STOP_COPY', [3, 2]],
    ['RUNNING_P2P', 'STOP_COPY', [2]],
    ['RUNNING_P2P', 'RESUMING', [4]],
    ['PRE_COPY', 'STOP_COPY', [2]],
    ['PRE_COPY', 'RUNNING_P2P', [1, 0]],
    ['STOP_COPY', 'RUNNING', [1]],
    ['RESUMING', 'RUNNING', [1]],
    ['RUNNING_P2P', 'PRE_COPY', [1, 3]],
  ])('%s to %s writes %j', (from, to, expected) => {
    const { device, tape, spy } = at(from, p2p);
    device.setState(V2[to]);
    expect(tape.states).toEqual(expected);
    expect(changes(spy)).toEqual([]);
    expect([v2StateName(device.getState()), v2StateName(device.getState())]).toEqual([to, to]);
    expect(tape.state).toBe(v1Of[to]);
  });

  test('PRE_COPY_P2P to PRE_COPY is EINVAL and the state unchanged, the session too', () => {
    const { device, tape, begin } = newVmm(new TapeV1({ stopCopy: [noise(10)] }), p2p);
    const session = begin(V2.PRE_COPY);
    device.setState(V2.PRE_COPY_P2P);
    expect(thrownBy(() => device.setState(V2.PRE_COPY))).toMatchObject({ code: 'ERR_TRANSITION', errno: 'EINVAL' });
    expect([device.getState(), tape.state]).toEqual([V2.PRE_COPY_P2P, 2]);
    expect(readSome(session, 100)).toEqual(noise(10));
  });

  test('PRE_COPY, PRE_COPY_P2P and STOP_COPY share one session; 0 is its end in the last only', () => {
    const { device, begin } = newVmm(new TapeV1({ preCopy: [noise(10)], stopCopy: [noise(20, 2)] }), p2p);
    const session = begin(V2.PRE_COPY);
    expect(readSome(session, 100)).toEqual(noise(10));
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    expect(device.setState(V2.PRE_COPY_P2P)).toBeUndefined();
    expect(readSome(session, 15)).toEqual(noise(20, 2).subarray(0, 15));
    expect(session.precopyInfo().initialBytes + session.precopyInfo().dirtyBytes).toBe(5);
    expect(readSome(session, 15)).toEqual(noise(20, 2).subarray(15));
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
    expect(readSome(session, 100)).toHaveLength(0);
  });

  test('a P2P state is forgotten with a reset', () => {
    for (const name of ['RUNNING_P2P', 'PRE_COPY_P2P'] as const) {
      const own = at(name, p2p);
      own.device.reset();
      expect(own.device.getState()).toBe(V2.RUNNING);
      own.device.setState(V2.STOP);
      expect(own.device.getState()).toBe(V2.STOP);
      const behind = at(name, p2p);
      behind.tape.reset();
      expect(behind.device.getState()).toBe(V2.RUNNING);
    }
  });

  test('a hop that fails leaves the P2P state that was shown', () => {
    const { device, tape } = at('RUNNING_P2P', p2p);
    tape.refusals.set('0 1', { error: failure('EBUSY') });
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EBUSY');
    expect(device.getState()).toBe(V2.RUNNING_P2P);
  });
});
