import { describe, expect, it } from 'vitest';
import { presentV1 } from '../../../src/bridge/index.ts';
import { observe } from '../../../src/device/observe.ts';
import { planDevice } from '../../../src/interpose/run/plan-device.ts';
import { storeOf } from '../../../src/sim/byte-store.ts';
import { ReportCounter } from '../../../src/interpose/serve/report.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import type { V1Device } from '../../../src/v1/device.ts';
import { V1 } from '../../../src/v1/states.ts';
import { V2 } from '../../../src/v2/states.ts';
import { join, noise, sha256 } from '../../support/bytes.ts';
import { failure, notYet, outcome } from '../../support/errno.ts';
import { v1Sim, v2Sim } from '../../support/sims.ts';
import { TapeV2 } from '../../support/tape-v2.ts';
import { v1User, writeRegister } from '../../support/v1-user.ts';
import { FULL } from '../../support/runs.ts';
import { patient } from '../../support/patience.ts';

const plan = planDevice(3, 'qat,seed=5', parseSpec('qat,seed=5'), 65536);

describe('ReportCounter', () => {
  it('counts what moved and lists the states that the device was in, each change once', () => {
    const memory = new Uint8Array(256);
    const counter = new ReportCounter(memory, 'v2');
    const entered = [2, 2, 6, 6, 3, 1].map((state) => counter.state(state));
    expect(entered).toEqual(['RUNNING', undefined, 'PRE_COPY', undefined, 'STOP_COPY', 'STOP']);
    counter.moved('out', 100);
    counter.moved('out', 2 ** 40);
    counter.moved('in', 7);
    counter.counts.calls += 3;
    const expected = {
      name: '0000:93:00.0',
      device: 'qat,seed=5',
      protocol: 'v2',
      bytesOut: 2 ** 40 + 100,
      buffersOut: 2,
      bytesIn: 7,
      buffersIn: 1,
      trappedCalls: 3,
      states: ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'],
      statesOmitted: 0,
      sha256: sha256(noise(5000)),
    };
    expect(counter.report(plan.name, plan.text, storeOf(noise(5000)))).toEqual(expected);
    // a successor goes on counting
    const successor = new ReportCounter(memory, 'v2');
    successor.state(1);
    successor.state(2);
    expect(successor.report(plan.name, plan.text, storeOf(noise(5000)))).toEqual({
      ...expected,
      states: [...expected.states, 'RUNNING'],
    });
  });

  it('names the states of a v1 device', () => {
    const counter = new ReportCounter(new Uint8Array(256), 'v1');
    for (const state of [1, 3, 2, 0, 4, 6]) counter.state(state);
    const { states, protocol } = counter.report(plan.name, plan.text, storeOf(new Uint8Array(0)));
    expect(states).toEqual(['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP', 'RESUMING', 'ERROR']);
    expect(protocol).toBe('v1');
  });

  it('says how many states it could not list, and writes nowhere else', () => {
    const memory = new Uint8Array(300).fill(0xee, 256);
    const counter = new ReportCounter(memory.subarray(0, 256), 'v2');
    for (let n = 0; n < 1000; n += 1) counter.state(1 + (n % 2));
    const { states, statesOmitted } = counter.report(plan.name, plan.text, storeOf(new Uint8Array(0)));
    expect(states.length + statesOmitted).toBe(1000);
    expect(states.length).toBeGreaterThan(100);
    expect(states.slice(0, 3)).toEqual(['STOP', 'RUNNING', 'STOP']);
    expect(memory.subarray(256).every((byte) => byte === 0xee)).toBe(true);
  });

  it.runIf(FULL)('hashes memory larger than Node hashes at once', { timeout: patient(300_000) }, () => {
    const counter = new ReportCounter(new Uint8Array(256), 'v2');
    // 2 GiB and a page of zeros: never written, so hardly any of it is there
    const memory = new Uint8Array(2 ** 31 + 4096);
    const { sha256: hash } = counter.report(plan.name, plan.text, storeOf(memory));
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('ReportCounter of a v1 VMM', () => {
  /** A VMM whose calls are counted, each by a successor over the same memory. */
  function counting(device: V1Device): { user: ReturnType<typeof v1User>; device: V1Device; moved: () => number[] } {
    const memory = new Uint8Array(256);
    const seen = observe({ protocol: 'v1', device }, (event) => new ReportCounter(memory, 'v2').ofVmm(event));
    const moved = (): number[] => {
      const { bytesOut, buffersOut, bytesIn, buffersIn } = new ReportCounter(memory, 'v2').report('', '', undefined);
      return [bytesOut, buffersOut, bytesIn, buffersIn];
    };
    return { user: v1User(seen.device), device: seen.device, moved };
  }

  it('counts a buffer once, however often its size is read, and the next one for itself', () => {
    const { user, moved } = counting(v1Sim('vendor-v1,size=16K,section=8K,seed=1').device);
    user.setState(V1.STOP_COPY);
    user.pending();
    const first = user.buffer().length;
    expect(moved()).toEqual([first, 1, 0, 0]);
    user.size();
    user.offset();
    user.size();
    expect(moved()).toEqual([first, 1, 0, 0]);
    const rest = user.drain();
    expect(moved()).toEqual([first + join(rest).length, 1 + rest.length, 0, 0]);
    user.pending();
    user.size();
    expect(moved()).toEqual([first + join(rest).length, 1 + rest.length, 0, 0]);
  });

  it('counts a buffer once that is shown on both sides of the change to stop-and-copy', () => {
    const tape = new TapeV2({ answers: [noise(100)], precopyInfo: { initialBytes: 100, dirtyBytes: 0 } });
    const { user, moved } = counting(presentV1(tape, { dataSection: new Uint8Array(4096) }));
    user.setState(V1.PRE_COPY);
    user.pending();
    expect(user.buffer()).toHaveLength(100);
    user.setState(V1.STOP_COPY);
    expect(user.buffer()).toHaveLength(100);
    expect(moved()).toEqual([100, 1, 0, 0]);
  });

  it.each(['a state write', 'a reset'])('counts a buffer anew behind %s', (what) => {
    const { user, device, moved } = counting(v1Sim('vendor-v1,size=16K,section=8K,seed=1').device);
    for (const times of [1, 2]) {
      user.setState(V1.STOP_COPY);
      expect(user.buffer()).toHaveLength(32);
      expect(moved()).toEqual([32 * times, times, 0, 0]);
      if (what === 'a reset') device.reset();
      else user.setState(V1.RUNNING);
    }
  });

  it('counts what came in once it is accepted', () => {
    const tape = new TapeV2();
    const { user, device, moved } = counting(presentV1(tape, { dataSection: new Uint8Array(4096) }));
    user.setState(V1.RESUMING);
    user.load(noise(10));
    tape.writeAnswers.push(notYet());
    expect(outcome(() => user.load(noise(20)))).toBe('EAGAIN');
    expect(moved()).toEqual([0, 0, 10, 1]);
    user.load(noise(20));
    expect(moved()).toEqual([0, 0, 30, 2]);
    writeRegister(device, 'data_size', 0);
    tape.writeAnswers.push(failure('EINVAL'));
    expect(outcome(() => user.load(noise(40)))).toBe('EINVAL');
    expect(moved()).toEqual([0, 0, 30, 2]);
  });
});

it('ReportCounter of a v2 VMM counts reads and writes that move something', () => {
  const memory = new Uint8Array(256);
  const counter = new ReportCounter(memory, 'v2');
  const watch = (text: string): ReturnType<typeof v2Sim>['device'] =>
    observe({ protocol: 'v2', device: v2Sim(text).device }, (event) => counter.ofVmm(event)).device;
  const saving = watch('qat,size=8K').setState(V2.STOP_COPY);
  const state = new Uint8Array(10_000);
  const length = saving?.read(state) ?? 0;
  expect(saving?.read(state.subarray(length))).toBe(0);
  const resuming = watch('qat,size=8K').setState(V2.RESUMING);
  resuming?.write(state.subarray(0, 100));
  resuming?.write(state.subarray(100, length));
  expect(outcome(() => resuming?.read(state))).toBe('EBADF');
  expect(counter.report('', '', undefined)).toMatchObject({
    bytesOut: length,
    buffersOut: 1,
    bytesIn: length,
    buffersIn: 2,
  });
});

it('ReportCounter tells of each new state of the driver, by what its calls show', () => {
  const entered: (string | undefined)[] = [];
  const counter = new ReportCounter(new Uint8Array(256), 'v1');
  const sink = (event: Parameters<typeof counter.ofDriver>[0]): number => entered.push(counter.ofDriver(event));
  const { device } = observe({ protocol: 'v1', device: v1Sim('vendor-v1').device }, sink);
  const user = v1User(device);
  user.state();
  user.setState(V1.PRE_COPY);
  user.state();
  user.pending();
  outcome(() => user.setState(V1.RESUMING));
  device.reset();
  expect(entered).toEqual(['RUNNING', 'PRE_COPY', undefined, undefined, undefined, 'RUNNING']);
});
