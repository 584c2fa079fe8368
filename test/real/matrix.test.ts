import { expect, it } from 'vitest';
import { declared, titleOf } from '../../matrix/cell.ts';
import { cells } from '../../matrix/cells.ts';
import { runCell } from '../../matrix/run-cell.ts';
import { FULL, inShort } from '../support/runs.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(120_000);

/** `npm run matrix` runs all; here each QEMU has its turn. */
const quickCells = cells.filter(({ quick }) => FULL || quick === true);
for (const cell of inShort(quickCells, (_, n) => n % 3 === 0)) {
  describeWithQemus([...new Set([cell.from, cell.to])], titleOf(cell), () => {
    it('comes out as declared', { timeout: TIMEOUT }, async () => {
      const outcome = await runCell(cell);
      expect(outcome).toMatchObject(
        outcome.verdict === 'works' && cell.device !== 'none'
          ? { ...declared(cell), sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }
          : declared(cell),
      );
    });
  });
}
