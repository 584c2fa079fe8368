import { expect, it } from 'vitest';
import { declared, ENDS, inWords, isReason, titleOf } from '../../matrix/decisions/case.ts';
import { cases } from '../../matrix/decisions/cases.ts';
import { decide } from '../../matrix/decisions/decide.ts';
import { FULL } from '../support/runs.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

/** `npm run decisions` runs all, with DMA too, which takes minutes; here each QEMU decides about a state that comes in pre-copy, and one that comes later. */
for (const each of cases.filter(({ quick, dma }) => FULL || (quick === true && dma === undefined))) {
  describeWithQemus([each.qemu], `what a VMM decides: ${titleOf(each)}`, () => {
    it.each(ENDS)('%s, is as declared', { timeout: patient(300_000) }, async (end) => {
      const decision = await decide(each, end);
      expect(inWords(decision, each)).toBe(declared(each, end));
      expect(decision, 'what QEMU was told').toSatisfy((told: typeof decision) => isReason(told, each));
    });
  });
}
