import { check } from '../guest/check.ts';
import { assertDraftMoves, DRAFTS } from '../guest/drafts.ts';

/** As drafts, with another supervisor for each access to a register. */

for (const draft of DRAFTS) {
  await check(`${draft} on v1 drivers`, (bed) => assertDraftMoves(bed, draft, 'accessed', { kill: true }));
}
