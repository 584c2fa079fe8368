import { describe, expect, it } from 'vitest';
import { planDevice } from '../../../src/interpose/run/plan-device.ts';
import { ReportCounter } from '../../../src/interpose/serve/report.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { noise, sha256 } from '../../support/bytes.ts';

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
    expect(counter.report(plan.name, plan.text, noise(5000))).toEqual(expected);
    // a successor goes on counting
    const successor = new ReportCounter(memory, 'v2');
    successor.state(1);
    successor.state(2);
    expect(successor.report(plan.name, plan.text, noise(5000))).toEqual({
      ...expected,
      states: [...expected.states, 'RUNNING'],
    });
  });

  it('names the states of a v1 device', () => {
    const counter = new ReportCounter(new Uint8Array(256), 'v1');
    for (const state of [1, 3, 2, 0, 4, 6]) counter.state(state);
    const { states, protocol } = counter.report(plan.name, plan.text, new Uint8Array(0));
    expect(states).toEqual(['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP', 'RESUMING', 'ERROR']);
    expect(protocol).toBe('v1');
  });

  it('says how many states it could not list, and writes nowhere else', () => {
    const memory = new Uint8Array(300).fill(0xee, 256);
    const counter = new ReportCounter(memory.subarray(0, 256), 'v2');
    for (let n = 0; n < 1000; n += 1) counter.state(1 + (n % 2));
    const { states, statesOmitted } = counter.report(plan.name, plan.text, new Uint8Array(0));
    expect(states.length + statesOmitted).toBe(1000);
    expect(states.length).toBeGreaterThan(100);
    expect(states.slice(0, 3)).toEqual(['STOP', 'RUNNING', 'STOP']);
    expect(memory.subarray(256).every((byte) => byte === 0xee)).toBe(true);
  });

  it.runIf(process.env['VFIO_SHIM_FULL'] !== undefined)('hashes memory larger than Node hashes at once', () => {
    const counter = new ReportCounter(new Uint8Array(256), 'v2');
    // 2 GiB and a page of zeros: never written, so hardly any of it is there
    const memory = new Uint8Array(2 ** 31 + 4096);
    const { sha256: hash } = counter.report(plan.name, plan.text, memory);
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
  });
});
