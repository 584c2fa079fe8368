import { describe, expect, it } from 'vitest';
import { ShimError } from '../../src/error.ts';
import type { V2Device } from '../../src/v2/device.ts';
import {
  checkDevice,
  checkSteps,
  inWords,
  rulesFor,
  type CheckedDevice,
  type Conclusion,
} from '../../src/check/index.ts';
import { v2Sim } from '../support/sims.ts';
import { modelLog } from './model-log.ts';
import { lawful, V2Mutant } from './v2-mutant.ts';
import { v2Mutants } from './v2-mutants.ts';

const ids = rulesFor('v2').map(({ id }) => id);

function broken({ results }: Conclusion): string[] {
  return results.flatMap(({ id, verdict }) => (verdict === 'broken' ? id : []));
}

const SIM = { qat: 'qat,size=8K', hisi: 'hisi,size=8K', pds: 'pds,size=8K' } as const;

function lawfulDevice(sim: string): CheckedDevice {
  const { device } = v2Sim(SIM[sim as keyof typeof SIM]);
  return { migratable: { protocol: 'v2', device: lawful(device) }, dmaLog: modelLog() };
}

describe('rules of v2', () => {
  it.each(Object.keys(SIM))('a driver that keeps them breaks none (%s)', (sim) => {
    const conclusion = checkDevice(lawfulDevice(sim));
    expect(broken(conclusion)).toEqual([]);
    expect(conclusion.conforms).toBe(true);
    expect(conclusion.results.filter(({ isFailure }) => isFailure)).toEqual([]);
    expect(conclusion.results.map(({ id }) => id)).toEqual(ids);
  });

  it('each has a driver that breaks it', () => {
    expect([...v2Mutants.keys()].toSorted()).toEqual(ids.toSorted());
  });

  it.each([...v2Mutants])(
    '%s is broken by a driver that does, and no other',
    (id, { make, log, sim = 'qat', also = [] }) => {
      const mutant = (): CheckedDevice => {
        const { migratable } = lawfulDevice(sim);
        if (migratable.protocol !== 'v2') throw new Error('no v2 device');
        const device = new V2Mutant(migratable.device, make());
        return { migratable: { protocol: 'v2', device }, dmaLog: modelLog(log) };
      };
      const conclusion = checkDevice(mutant(), { reopen: mutant });
      const found = broken(conclusion);
      expect(found).toContain(id);
      expect(found.filter((each) => each !== id && !also.includes(each))).toEqual([]);
      expect(conclusion.conforms).toBe(false);
    },
  );

  /** A device that is gone, for good, once so many rules were tried: what was tried until then, and what opening it again costs. */
  function goneAfter(rules: number): { steps: ReturnType<typeof checkSteps>; opened: () => number } {
    const { migratable } = lawfulDevice('qat');
    if (migratable.protocol !== 'v2') throw new Error('no v2 device');
    let [tried, opened] = [0, 0];
    const reset = (next: V2Device): void => {
      if (tried >= rules)
        throw new ShimError('ERR_DEVICE', 'the server has closed the connection', { errno: 'ECONNRESET' });
      next.reset();
    };
    const device = new V2Mutant(migratable.device, { reset });
    const reopen = (): never => {
      opened += 1;
      throw new ShimError('ERR_SYSCALL', 'connect to /s: connection refused', { errno: 'ECONNREFUSED' });
    };
    function* counted(): ReturnType<typeof checkSteps> {
      const steps = checkSteps({ migratable: { protocol: 'v2', device } }, { reopen });
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done === true) return step.value;
        tried += 1;
        yield step.value;
      }
    }
    return { steps: counted(), opened: () => opened };
  }

  it('of a device that is gone, each rule that is left says so, and nothing more is asked', () => {
    const { steps, opened } = goneAfter(3);
    let step = steps.next();
    while (step.done !== true) step = steps.next();
    const conclusion = step.value;
    expect(conclusion.results.map(({ isGone = false }) => isGone)).toEqual(ids.map((_, n) => n >= 3));
    expect(new Set(conclusion.results.slice(3).map(({ verdict, why }) => `${verdict}: ${why}`))).toEqual(
      new Set([
        'not tried: the device is gone: the server has closed the connection (ECONNRESET); it cannot be opened again: connect to /s: connection refused (ECONNREFUSED)',
      ]),
    );
    expect({ opened: opened(), conforms: conclusion.conforms }).toEqual({ opened: 1, conforms: false });
    expect(inWords(conclusion)).toMatch(new RegExp(` not tried, ${ids.length - 3} of them as the device was gone$`));
  });

  it('a device that is gone only when it is to run at the end is told of', () => {
    const { steps } = goneAfter(ids.length);
    for (const id of ids) expect(steps.next().value).toMatchObject({ id });
    expect(() => steps.next()).toThrow(expect.objectContaining({ code: 'ERR_DEVICE', errno: 'ENODEV' }) as Error);
  });
});
