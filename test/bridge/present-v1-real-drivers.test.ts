import { describe, expect, test } from 'vitest';
import { presentV1, presentV2, type PresentV1Options } from '../../src/bridge/index.ts';
import { hasErrno } from '../../src/error.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import type { WaitForDevice } from '../../src/wait.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { begun, drained, stateOf, v2Sim, type V2Sim } from '../support/sims.ts';
import { v1User } from '../support/v1-user.ts';

/*
 * What presentV1 makes of simulated drivers that have the streams and the habits of Linux's (docs/devices.md).
 */

const SECTION = 8192;

interface Presented extends V2Sim {
  readonly v1: ReturnType<typeof presentV1>;
  readonly user: ReturnType<typeof v1User>;
  readonly warnings: string[];
}

function presented(text: string, options: PresentV1Options = {}): Presented {
  const sim = v2Sim(text);
  const warnings: string[] = [];
  const warn = (message: string): void => void warnings.push(message);
  const v1 = presentV1(sim.device, { dataSection: new Uint8Array(SECTION), warn, ...options });
  return { ...sim, v1, user: v1User(v1), warnings };
}

/** A wait that does not take time, and how often it was asked for. */
function counted(): { wait: WaitForDevice; waits: () => number } {
  let waits = 0;
  return { wait: () => void (waits += 1), waits: () => waits };
}

/** Migrates a running device as an old VMM does; `guest` writes to its memory in pre-copy, after each buffer. */
function savedByOldVmm(source: Presented, guest: (n: number) => void = () => {}, wait?: WaitForDevice): Uint8Array[] {
  const buffers: Uint8Array[] = [];
  const save = new V1Save(source.v1, (buffer) => buffers.push(buffer.slice()), wait);
  save.setup();
  for (let n = 0; n < 20 && save.iterate() > 0; n += 1) guest(n);
  save.stop();
  save.complete();
  return buffers;
}

function restoredByOldVmm(destination: Presented, buffers: readonly Uint8Array[], wait?: WaitForDevice): void {
  const restore = new V1Restore(destination.v1, wait);
  restore.setup();
  for (const buffer of buffers) restore.load(buffer);
  restore.complete();
}

const REAL = [
  'qat,real=1',
  'qat,real=1,size=100,short=700',
  'hisi,real=1',
  'hisi,real=1,short=33',
  'pds,real=1,size=30000',
  'virtio,size=20000',
  'virtio,size=20000,ratelimit=1',
  'virtio,size=20000,ratelimit=2,short=1000',
  'xe,size=40000',
  'xe,size=200000',
  'xe,size=40000,unready=3',
  'xe,size=40000,unready=1,short=5000',
  'xe,size=40000,nosize=1',
];

describe.each(REAL)('an old VMM and %s', (spec) => {
  test('the destination has the memory as it was when the source stopped', () => {
    const { wait } = counted();
    const source = presented(`${spec},seed=3`);
    const destination = presented(spec);
    const buffers = savedByOldVmm(source, (n) => source.bar.set(noise(source.bar.length, n + 1)), wait);
    restoredByOldVmm(destination, buffers, wait);
    expect(destination.bar).toBeBytes(source.bar);
    expect([source.user.state(), destination.user.state()]).toEqual([0, 1]);
    expect([source.warnings, destination.warnings]).toEqual([[], []]);
  });

  test('what it has is the stream of the driver, so a new VMM without a bridge can go on with it', () => {
    const { wait } = counted();
    const source = presented(`${spec},seed=3`);
    const bytes = join(savedByOldVmm(source, () => {}, wait));
    const destination = v2Sim(spec);
    const restore = new V2Restore(destination.device, wait);
    restore.setup();
    for (const piece of cut(bytes, [32_768])) restore.load(piece);
    restore.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });

  test.each(['raw', 'framed'] as const)('there and back, %s, a new VMM migrates it too', (segmentation) => {
    const { wait } = counted();
    const round = (sim: Presented): ReturnType<typeof presentV2> => presentV2(sim.v1, { segmentation });
    const source = presented(`${spec},seed=3`);
    const destination = presented(spec);
    const pieces: Uint8Array[] = [];
    const save = new V2Save(round(source), (piece) => pieces.push(piece.slice()), wait);
    save.setup();
    for (let n = 0; n < 20 && save.pending() > 0 && save.iterate() > 0; n += 1) {
      source.bar.set(noise(source.bar.length, n + 1));
    }
    save.stop();
    save.complete();
    const restore = new V2Restore(round(destination), wait);
    restore.setup();
    for (const piece of pieces) restore.load(piece);
    restore.complete();
    expect(destination.bar).toBeBytes(source.bar);
    expect(destination.device.getState()).toBe(V2.RUNNING);
  });
});

describe('an old VMM and hisi,real=1,up=0, whose guest has no driver that is up', () => {
  test.each([true, false])('moves the match data, with pre-copy %s, and pending_bytes is 0 behind it', (preCopy) => {
    const { user } = presented('hisi,real=1,up=0');
    const buffers: Uint8Array[] = [];
    if (preCopy) {
      user.setState(3);
      expect(user.pending()).toBe(40);
      buffers.push(...user.drain());
    }
    user.setState(2);
    buffers.push(...user.drain());
    expect([join(buffers).length, user.pending(), user.size()]).toEqual([40, 0, 0]);
    const destination = presented('hisi,real=1,seed=5');
    restoredByOldVmm(destination, buffers);
    expect([destination.user.state(), destination.warnings]).toEqual([1, []]);
  });
});

describe('a state that the driver refuses and then lets pass', () => {
  test.each([
    ['qat,real=1', 'qat,real=1,compat=2', 'EINVAL'],
    ['hisi,real=1', 'hisi,real=1,compat=2', 'EFAULT'],
    ['virtio,size=5000', 'virtio,size=5000,compat=2', 'EINVAL'],
    ['xe,size=5000', 'xe,size=5000,compat=2', 'ENODEV'],
  ])('%s runs after the state of %s, and presentV1 does not say so: %s until a reset', (spec, source, errno) => {
    const state = stateOf(source);
    const pieces = cut(state, [40, 50, 400]); // the descriptor of xe is one of them

    const raw = v2Sim(spec);
    const session = begun(raw.device, V2.RESUMING);
    const answers = pieces.map((piece) => outcome(() => session.write(piece)));
    expect(answers).toContain(errno);
    expect(outcome(() => raw.device.setState(V2.RUNNING))).toBe('OK');

    const { device, user, v1 } = presented(spec);
    user.setState(4);
    const loads = pieces.map((piece) => outcome(() => user.load(piece)));
    const first = loads.indexOf(errno);
    expect(loads).toEqual(loads.map((_, n) => (n < first ? 'OK' : errno)));
    for (const to of [1, 0, 1]) expect(outcome(() => user.setState(to))).toBe(errno);
    expect([user.state(), device.getState()]).toEqual([4, V2.RESUMING]);
    v1.reset();
    if (spec.startsWith('hisi')) return; // whose driver does not follow a reset
    expect([user.state(), device.getState()]).toEqual([1, V2.RUNNING]);
  });

  test('pds refuses at the exit: the VMM is told, and the device stays in RESUMING', () => {
    const { user } = presented('pds,real=1,size=5000');
    user.setState(4);
    for (const piece of cut(stateOf('pds,real=1,size=5000,compat=2'), [4096])) user.load(piece);
    for (const to of [1, 0]) expect(outcome(() => user.setState(to))).toBe('EINVAL');
    expect(user.state()).toBe(4);
  });

  test('pds takes no more than its buffer: a longer state is EINVAL in the transaction that ends beyond it', () => {
    const { user } = presented('pds,real=1,size=5000');
    user.setState(4);
    const answers = cut(new Uint8Array(65_537), [SECTION]).map((piece) => outcome(() => user.load(piece)));
    expect(answers).toEqual([...Array.from({ length: 8 }, () => 'OK'), 'EINVAL']);
  });
});

describe('pds,real=1 whose firmware recovers', () => {
  const spec = 'pds,real=1,size=30000,short=4096,recovery=3';

  test.each(['reset', 'report'] as const)('while it is saved: the save fails, onError %s', (onError) => {
    const { device, user, v1, warnings } = presented(spec, { onError });
    user.setState(2);
    const answers: string[] = [];
    for (let n = 0; n < 6; n += 1) answers.push(outcome(() => user.pending()) + outcome(() => user.buffer()));
    expect(answers[0]).toBe('OKOK');
    expect(answers.at(-1)).not.toContain('OK');
    if (onError === 'reset') {
      expect(warnings).toContain('the device is in ERROR and is reset');
      expect([user.state(), device.getState()]).toEqual([1, V2.RUNNING]);
    } else {
      expect(warnings).toContain('the device is in ERROR');
      expect([user.state(), device.getState()]).toEqual([6, V2.ERROR]);
      for (const to of [0, 1, 2, 3]) expect(outcome(() => user.setState(to))).not.toBe('OK');
      v1.reset();
    }
    outcome(() => user.setState(2)); // which tells of the loss, if nothing has
    v1.reset();
    expect([user.state(), device.getState()]).toEqual([1, V2.RUNNING]);
  });

  test.each(['reset', 'report'] as const)(
    'while it is restored: the device never runs as if it had a state, onError %s',
    (onError) => {
      const { device, user, warnings } = presented(spec, { onError });
      user.setState(4);
      const answers = cut(stateOf('pds,real=1,size=30000,seed=3'), [SECTION]).map((piece) =>
        outcome(() => user.load(piece)),
      );
      expect(answers[0]).toBe('OK');
      expect(answers.slice(1)).not.toContain('OK');
      expect(outcome(() => user.setState(1))).not.toBe('OK');
      expect(warnings.filter((text) => text.startsWith('the device is in ERROR'))).toHaveLength(1);
      expect(device.getState()).toBe(onError === 'reset' ? V2.RUNNING : V2.ERROR);
    },
  );
});

describe('virtio, whose state is in the stream again and again', () => {
  const spec = 'virtio,size=5000,ratelimit=1';
  const RECORD = 16 + 16 + 5000;

  test('pending_bytes in pre-copy has the driver make another state, each as it was then', () => {
    const { bar, user } = presented(`${spec},seed=3`);
    const memories: Uint8Array[] = [bar.slice()];
    user.setState(3);
    const buffers: Uint8Array[] = [];
    for (let n = 0; n < 3; n += 1) {
      expect(user.pending()).toBeGreaterThan(0);
      bar.set(noise(5000, n)); // the state that was read before is as it was
      if (n > 0) memories.push(noise(5000, n - 1));
      buffers.push(user.buffer());
    }
    user.pending(); // takes the third, and finds that a fourth has to be made
    memories.push(noise(5000, 2));
    user.setState(2);
    memories.push(bar.slice());
    buffers.push(...user.drain());
    const stream = join(buffers);
    expect(stream).toHaveLength(5 * RECORD);
    const found = cut(stream, [RECORD]).map((record) => record.subarray(32));
    for (const [n, memory] of memories.entries()) expect(found[n] ?? new Uint8Array(0)).toBeBytes(memory);
  });

  test('the temporary end is no error, and pending_bytes says that there is more than MIG_DATA_SIZE had said', () => {
    const { device, user } = presented('virtio,size=5000,ratelimit=9');
    user.setState(3);
    expect(user.drain()).toHaveLength(1);
    expect([user.pending(), user.size()]).toEqual([0, 0]);
    user.setState(2);
    expect(user.pending()).toBe(RECORD);
    expect(device.stopCopyLength()).toBe(RECORD - 16);
  });
});

describe('hisi, whose driver keeps its migration state over a reset', () => {
  test('runs afterwards all the same, and the user is told that his save is lost', () => {
    const { device, v1, user } = presented('hisi,real=1');
    user.setState(2);
    user.buffer();
    v1.reset();
    expect([user.state(), device.getState()]).toEqual([1, V2.RUNNING]);
    expect(outcome(() => user.pending())).toBe('EIO');
    user.setState(1);
    user.setState(2);
    expect(user.drain()).not.toEqual([]);
  });

  test('shows where it is if it cannot be made to run, and says so', () => {
    const { v1, user, warnings } = presented('hisi,real=1');
    user.setState(4);
    user.load(new Uint8Array(10)); // not all of a state: the driver does not leave RESUMING
    v1.reset();
    expect(user.state()).toBe(4);
    expect(warnings.at(-1)).toMatch(/^after a reset the device is in RESUMING and does not run: /);
  });
});

describe('xe, whose reads wait', () => {
  test('an access says "not yet", by nothing that tells when, and then has the data', () => {
    const { user } = presented('xe,size=40000,unready=2,seed=3');
    user.setState(2);
    const { code, readiness } = thrownBy(() => user.pending());
    expect([code, readiness]).toEqual(['ERR_NO_DATA_YET', undefined]);
    const buffers: Uint8Array[] = [];
    let waits = 1;
    for (let more = true; more;) {
      try {
        more = user.pending() > 0;
        if (more) buffers.push(user.buffer());
      } catch (error) {
        if (!hasErrno(error, 'EAGAIN')) throw error;
        waits += 1;
      }
    }
    expect(waits).toBe(2 * 3);
    expect(join(buffers)).toBeBytes(stateOf('xe,size=40000,seed=3'));
  });

  test('a size that is an errno is none: pending_bytes counts what there is', () => {
    const { user } = presented('xe,size=1000,nosize=1', { pendingIncludesStopCopy: true });
    user.setState(3);
    expect(user.pending()).toBe(0);
    user.setState(2);
    expect(user.pending()).toBe(stateOf('xe,size=1000').length);
  });

  test('a cancel that the driver refuses is told, and only a reset helps', () => {
    const { device, user, v1 } = presented('xe,size=200000');
    user.setState(2);
    user.buffer();
    expect(outcome(() => user.setState(1))).toBe('EIO');
    expect(outcome(() => user.buffer())).toBe('OK'); // what had been read from the driver already
    expect(outcome(() => void (user.pending(), user.buffer()))).toBe('ENODEV');
    v1.reset();
    expect([user.state(), device.getState()]).toEqual([1, V2.RUNNING]);
  });

  test('a VMM that asks for pre-copy, which it lacks, does not stop it', () => {
    const { device, user } = presented('xe,size=1000');
    user.setState(3);
    expect(user.state()).toBe(3);
    user.setState(2);
    expect(drained(device.openSession()).length + user.pending()).toBeGreaterThan(1000);
  });
});
