import { describe, expect, test } from 'vitest';
import { presentV1 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { V2Save } from '../../src/v2/save.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { oldVmm } from '../support/presented.ts';
import { v2Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const state = noise(8192);

describe('presentV1 resuming', () => {
  test.each([
    ['all at once', []],
    ['one by one', [1, 1, 1]],
    ['in uneven pieces', [4000, 1, 900]],
  ])('pushes exactly the bytes of data_size before the write returns, the driver taking them %s', (_, takes) => {
    const { user, tape, device } = oldVmm();
    tape.writeAnswers.push(...takes);
    user.setState(V1.RESUMING);
    device.write(DATA_OFFSET, state);
    writeRegister(device, 'data_size', 5000);
    expect(tape.taken).toBeBytes(state.subarray(0, 5000));
  });

  test('loads transaction after transaction in order', () => {
    const { user, tape } = oldVmm();
    user.setState(V1.RESUMING);
    for (const piece of cut(noise(50_000), [8192, 1, 300])) user.load(piece);
    expect(tape.taken).toBeBytes(noise(50_000));
  });

  test('a data_size of 0 writes nothing', () => {
    const { user, tape, device } = oldVmm();
    user.setState(V1.RESUMING);
    writeRegister(device, 'data_size', 0);
    expect(tape.taken).toEqual([]);
  });

  test('a write of 4 while resuming keeps the session', () => {
    const { user, spy } = oldVmm();
    user.setState(V1.RESUMING);
    user.load(state.subarray(0, 100));
    user.setState(V1.RESUMING);
    user.load(state.subarray(100, 200));
    expect(spy.sessions).toHaveLength(1);
    expect(join([spy.bytes('in')])).toEqual(state.subarray(0, 200));
  });

  test.each([0, 1, 2, 3])('data_size in state %i is EINVAL', (shown) => {
    const { user, tape, device } = oldVmm();
    user.setState(shown);
    expect(outcome(() => writeRegister(device, 'data_size', 8))).toBe('EINVAL');
    expect(tape.taken).toEqual([]);
  });

  test.each(['EINVAL', 'EFAULT', 'ENOMEM', 'ENOSPC'] as const)(
    'an error of the write is the errno of data_size: %s',
    (errno) => {
      const { user, tape } = oldVmm();
      tape.writeAnswers.push(10, failure(errno));
      user.setState(V1.RESUMING);
      expect(outcome(() => user.load(state))).toBe(errno);
      expect(user.state()).toBe(V1.RESUMING);
    },
  );

  test.each([0, -1, 8193, 2.5])('a driver that claims to have taken %d of 8192 bytes is an EIO', (claim) => {
    const { user, tape } = oldVmm();
    tape.writeAnswers.push(claim);
    user.setState(V1.RESUMING);
    expect(outcome(() => user.load(state))).toBe('EIO');
  });

  test.each([0, 1])('a refused transaction stays refused: more data, and the write of %i, until a reset', (out) => {
    const { user, tape, device } = oldVmm();
    tape.writeAnswers.push(100, failure('EREMOTEIO'));
    user.setState(V1.RESUMING);
    expect(outcome(() => user.load(state))).toBe('EREMOTEIO');
    tape.taken.length = 0;
    expect(outcome(() => user.load(state.subarray(0, 50)))).toBe('EREMOTEIO');
    for (const to of [out, 4, out]) expect(outcome(() => user.setState(to))).toBe(to === 4 ? 'OK' : 'EREMOTEIO');
    expect([user.state(), tape.state, tape.taken.length]).toEqual([4, V2.RESUMING, 0]);
    device.reset();
    expect(outcome(() => user.setState(V1.RESUMING))).toBe('EIO'); // part of it had been taken: the user is told of the loss, once
    user.setState(V1.RESUMING);
    user.load(state.subarray(0, 50));
    user.setState(out);
    expect(join(tape.taken)).toEqual(state.subarray(0, 50));
  });

  test('an unfinished transaction of an abandoned session leaves nothing behind', () => {
    const { user, tape, device } = oldVmm();
    tape.writeAnswers.push(100, notYet());
    user.setState(V1.RESUMING);
    expect(outcome(() => user.load(state))).toBe('EAGAIN');
    device.reset();
    tape.taken.length = 0;
    expect(outcome(() => user.setState(V1.RESUMING))).toBe('EIO');
    user.setState(V1.RESUMING);
    user.load(state.subarray(0, 150));
    expect(join(tape.taken)).toEqual(state.subarray(0, 150));
  });

  test('data_size reads 0: the data section is free', () => {
    const { user } = oldVmm();
    user.setState(V1.RESUMING);
    user.load(state);
    expect([user.size(), user.pending()]).toEqual([0, 0]);
  });
});

describe('presentV1 of the sims', () => {
  function savedBy(spec: string): Uint8Array {
    const pieces: Uint8Array[] = [];
    const save = new V2Save(v2Sim(spec).device, (piece) => pieces.push(piece.slice()));
    save.complete();
    return join(pieces);
  }

  test.each([
    ['qat', 'EINVAL', 'qat,compat=2'],
    ['hisi', 'EINVAL', 'hisi,version=2'],
    ['pds', 'EINVAL', 'pds,size=32K'],
    ['mtty', 'EFAULT', 'mtty,ports=2'],
  ])(
    '%s: a state that does not fit is refused with %s while it is written, not at the VM start',
    (spec, errno, source) => {
      const user = v1User(presentV1(v2Sim(spec).device, { dataSection: new Uint8Array(4096) }));
      user.setState(V1.RESUMING);
      const results = cut(savedBy(source), [20, 4, 8, 4096]).map((piece) => outcome(() => user.load(piece)));
      expect(results.find((result) => result !== 'OK')).toBe(errno);
      expect(results.indexOf(errno)).toBeLessThanOrEqual(2);
      // mtty itself would run: the refusal is forgotten once the bytes are there (samples/vfio-mdev/mtty.c, Linux 6.12)
      for (const to of [1, 0]) expect(outcome(() => user.setState(to))).toBe(errno);
      expect(user.state()).toBe(V1.RESUMING);
    },
  );

  test.each(['qat', 'mtty'])('%s: a truncated state refuses 1 and 0 and stays 4', (spec) => {
    const sim = v2Sim(spec);
    const user = v1User(presentV1(sim.device));
    const saved = savedBy(spec);
    user.setState(V1.RESUMING);
    user.load(saved.subarray(0, -1));
    for (const to of [1, 0]) {
      expect(outcome(() => user.setState(to))).toBe('EINVAL');
      expect([user.state(), sim.device.getState()]).toEqual([4, V2.RESUMING]);
    }
    user.load(saved.subarray(-1));
    user.setState(V1.RUNNING);
    expect(sim.device.getState()).toBe(V2.RUNNING);
  });
});
