import { writeFileSync } from 'node:fs';
import { assertHarried, assertNatively, imprintNatively, runV1Client, saveNatively } from '../guest/client.ts';
import { check } from '../guest/check.ts';
import { migrateHarassed } from '../guest/harass.ts';
import { Mtty } from '../guest/mtty.ts';
import { OLD, ROUND_SMALL } from '../guest/pair.ts';

/** Long: supervisors that are killed as `takeover` does, but more often. */

const minutes = { ms: 200_000 };

await check(
  '7.2 under run: a migration with many supervisors killed at both ends',
  (bed) => migrateHarassed(bed, OLD, 12, 0x8c),
  minutes,
);

await check(
  '10.0 under run --round-trip: a migration with many supervisors killed at both ends',
  (bed) => migrateHarassed(bed, ROUND_SMALL, 12, 0xc8),
  minutes,
);

await check(
  'killed before each register access of a v1 program: it restores what was saved',
  async (bed) => {
    const [from, to] = [Mtty.create(), Mtty.create()];
    await imprintNatively(from, 0x95);
    const file = bed.path('state');
    writeFileSync(file, saveNatively(from));
    assertHarried(await runV1Client(bed, 'restored', ['restore', file, '--interrupt'], to));
    await assertNatively(to, 0x95);
  },
  minutes,
);
