import assert from 'node:assert/strict';
import { check, note } from '../guest/check.ts';
import { DmaPair } from '../guest/dma-migration.ts';
import { CDEV, CDEV_ROUND, OLD } from '../guest/pair.ts';
import { assertCrosses, native10, old, young, type Side } from '../guest/v1mem-pair.ts';
import { BY_CDEV } from '../guest/vm.ts';

/** Our own drivers by their own nodes: one that speaks v1, and one that writes to memory which iommufd has pinned for it. */

const youngByCdev: Side = {
  title: '10.0 under run by cdev',
  options: (name) => ({
    ...young.options(name),
    ...BY_CDEV,
    vfioProperties: [...(native10.vfioProperties ?? []), ...(BY_CDEV.vfioProperties ?? [])],
  }),
};
for (const [from, to] of [
  [youngByCdev, youngByCdev],
  [youngByCdev, old],
  [old, youngByCdev],
] as const) {
  await check(`a v1 driver, live, ${from.title} to ${to.title}`, (bed) => assertCrosses(bed, from, to, 'accessed'));
}
await check('a v1 driver whose data is mapped, live, 10.0 under run by cdev to the same', (bed) =>
  assertCrosses(bed, youngByCdev, youngByCdev, 'mapped'),
);

for (const [title, from, to] of [
  ['native 10.0 by cdev to the same', CDEV, CDEV],
  ['10.0 under run --round-trip by cdev to native 10.0 by cdev', CDEV_ROUND, CDEV],
  ['10.0 under run --round-trip by cdev to 7.2 under run', CDEV_ROUND, OLD],
] as const) {
  await check(
    `a device that writes to memory which is pinned by iommufd, ${title}`,
    async (bed) => {
      const pair = await DmaPair.start(bed, { from, to, devices: 1, pagesPerSecond: 1000, limitMs: 120_000 });
      const outcome = await pair.migrate();
      const differing = await pair.differingPages();
      note(`${title}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);
      assert.equal(outcome.status, 'completed', outcome.why);
      assert.deepEqual(differing, []);
      assert.ok(outcome.written > 0 && outcome.looks >= 5);
      await pair.goOn();
    },
    { ms: 240_000 },
  );
}
