import { describe, expect, it } from 'vitest';
import { checkDevice, rulesFor, type CheckedDevice, type Conclusion } from '../../src/check/index.ts';
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
});
