import { migrateLive, queryMigration } from '../../test/real/migration.ts';
import { check, note } from '../guest/check.ts';
import { NEW, OLD, assertArrived, startBoth, type End } from '../guest/pair.ts';

/** Long: what the bridge costs on a real driver, QEMU 7.2 under run against native QEMU 10.0, in turns. */

const ROUNDS = 7;

interface Times {
  readonly total: number;
  readonly downtime: number;
}

async function migrate(name: string, end: End, seed: number): Promise<Times> {
  let times: Times | undefined;
  await check(name, async (bed) => {
    const { source, destination } = await startBoth(bed, end, end, seed);
    await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
    const { 'total-time': total = Number.NaN, downtime = Number.NaN } = await queryMigration(source.vm);
    times = { total, downtime };
    await assertArrived(bed, source, destination, seed);
  });
  if (times === undefined) throw new Error(`${name}: it has no times`);
  return times;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

const pairs: { ours: Times; baseline: Times }[] = [];
for (let round = 1; round <= ROUNDS; round += 1) {
  const ours = await migrate(`7.2 under run, round ${round}`, OLD, 0x40 + round);
  const baseline = await migrate(`10.0 native, round ${round}`, NEW, 0x40 + round);
  pairs.push({ ours, baseline });
}
for (const key of ['total', 'downtime'] as const) {
  const ours = median(pairs.map((pair) => pair.ours[key]));
  const baseline = median(pairs.map((pair) => pair.baseline[key]));
  const ratio = median(pairs.map((pair) => pair.ours[key] / pair.baseline[key]));
  note(`${key}: ${ours} ms against ${baseline} ms, ratio ${ratio.toFixed(2)} (medians of ${ROUNDS} pairs)`);
}
