import { describe, expect, it } from 'vitest';
import { checkDevice, rulesFor, type CheckedDevice, type Conclusion } from '../../src/check/index.ts';
import { v1Sim } from '../support/sims.ts';
import { v1Mutant } from './v1-mutant.ts';
import { v1Mutants } from './v1-mutants.ts';

const ids = rulesFor('v1').map(({ id }) => id);

function broken({ results }: Conclusion): string[] {
  return results.flatMap(({ id, verdict }) => (verdict === 'broken' ? id : []));
}

describe('rules of v1', () => {
  it.each([true, false])('a driver that keeps them breaks none (mapped: %s)', (isMapped) => {
    const { device } = v1Sim('vendor-v1,size=16K,section=8K');
    const conclusion = checkDevice({ migratable: { protocol: 'v1', device: v1Mutant(device, {}, isMapped) } });
    expect(broken(conclusion)).toEqual([]);
    expect(conclusion.conforms).toBe(true);
    expect(conclusion.results.filter(({ isFailure }) => isFailure)).toEqual([]);
    expect(conclusion.results.map(({ id }) => id)).toEqual(ids);
  });

  it('each has a driver that breaks it', () => {
    expect([...v1Mutants.keys()].toSorted()).toEqual(ids.toSorted());
  });

  it.each([...v1Mutants])(
    '%s is broken by a driver that does, and no other',
    (id, { make, isUnmapped = false, also = [] }) => {
      const mutant = (): CheckedDevice => {
        const device = v1Mutant(v1Sim('vendor-v1,size=16K,section=8K').device, make(), !isUnmapped);
        return { migratable: { protocol: 'v1', device } };
      };
      const conclusion = checkDevice(mutant(), { reopen: mutant });
      const found = broken(conclusion);
      expect(found).toContain(id);
      expect(found.filter((each) => each !== id && !also.includes(each))).toEqual([]);
      expect(conclusion.conforms).toBe(false);
    },
  );
});
