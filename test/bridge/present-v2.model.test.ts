import * as fc from 'fast-check';
import { describe, test } from 'vitest';
import { findingOf } from '../support/finding.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { V2VmmModel } from '../support/v2-vmm-model.ts';
import { v2Conditions, v2Step } from '../support/v2-vmm-steps.ts';

describe('presentV2, whatever a new VMM does', () => {
  test(
    'vendor-v1: the VMM and the driver agree, and what the VMM reads is what the driver saw consumed',
    () => {
      fc.assert(
        fc.property(v2Conditions, fc.array(v2Step, { maxLength: 60 }), (conditions, steps) => {
          const finding = findingOf(new V2VmmModel(conditions), steps);
          if (finding !== undefined) throw finding;
        }),
        { numRuns: numRuns() },
      );
    },
    PROPERTY_TIMEOUT,
  );
});
