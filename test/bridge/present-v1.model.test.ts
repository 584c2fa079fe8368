import * as fc from 'fast-check';
import { describe, test } from 'vitest';
import { findingOf } from '../support/finding.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { V1VmmModel } from '../support/v1-vmm-model.ts';
import { v1Step, weather } from '../support/v1-vmm-steps.ts';

/** Faults on many hops, some of them fatal, each some time after the start. */
const faults = ['STOP', 'RUNNING', 'STOP_COPY', 'PRE_COPY', 'RESUMING', 'RUNNING_P2P', 'PRE_COPY_P2P']
  .flatMap((state, n) => [
    `fault=${state}@${1 + (n % 3)}:EAGAIN`,
    `fault=${state}@${2 + (n % 2) * 2}:EBUSY`,
    `fault=${state}@${7 + n}:ENXIO!`,
    `fault=${state}@${9 + 2 * n}:EBUSY`,
  ])
  .join(',');

const specs = ['qat,size=10K,seed=3', 'mtty', 'mtty,ports=2', 'pds,size=9000,seed=4', 'hisi,size=8160,seed=5'];

describe('presentV1, whatever an old VMM does', () => {
  const cases = [
    ...specs.map((spec) => ({ spec, faults: '' })),
    ...['qat,size=5K,seed=3', 'pds,size=5K', 'hisi,size=5K'].map((spec) => ({ spec, faults: `,${faults}` })),
  ];
  test.each(cases)(
    '$spec: the VMM and the device agree, and what the VMM reads is what the driver gave',
    ({ spec, faults }) => {
      fc.assert(
        fc.property(weather, fc.array(v1Step, { maxLength: 60 }), (conditions, steps) => {
          const finding = findingOf(new V1VmmModel(spec, faults, conditions), steps);
          if (finding !== undefined) throw finding;
        }),
        { numRuns: numRuns() },
      );
    },
    PROPERTY_TIMEOUT,
  );
});
