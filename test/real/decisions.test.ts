import { expect, it } from 'vitest';
import { declared, ENDS, inWords, isReason, titleOf } from '../../matrix/decisions/case.ts';
import { cases } from '../../matrix/decisions/cases.ts';
import { decide } from '../../matrix/decisions/decide.ts';
import { AT_LENGTH, FULL } from '../support/runs.ts';
import { describeWithQemus } from './requirements.ts';

/** `npm run decisions` runs all; here each QEMU decides about a state that comes in pre-copy, one that comes later, and one beside too much DMA. */
for (const each of cases.filter(({ quick, dma }) => FULL || (quick === true && (AT_LENGTH || dma === undefined)))) {
  describeWithQemus([each.qemu], `what a VMM decides: ${titleOf(each)}`, () => {
    it.each(ENDS)('%s, is as declared', { timeout: 300_000 }, async (end) => {
      const decision = await decide(each, end);
      expect(inWords(decision, each)).toBe(declared(each, end));
      expect(decision, 'what QEMU was told').toSatisfy((told: typeof decision) => isReason(told, each));
    });
  });
}
