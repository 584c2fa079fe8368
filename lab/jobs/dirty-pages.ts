import assert from 'node:assert/strict';
import { check, note } from '../guest/check.ts';
import { DmaPair, type DmaMigration, type DmaOutcome } from '../guest/dma-migration.ts';
import { NEW, OLD } from '../guest/pair.ts';
import { killSupervisor } from '../guest/serving.ts';
import { FAULT } from '../guest/v2log.ts';

/**
 * An old VMM migrates while the devices of drivers that log write to its memory, all of which is pinned: the container calls everything
 * dirty at each look. QEMU 7.2, which knows of no driver's log, comes to the same end as QEMU 10.0, which reads it (dma-migration).
 */

const UNDER_RUN: DmaMigration = { from: OLD, to: OLD, devices: 2, pagesPerSecond: 1000 };

const tell = (what: string, outcome: DmaOutcome, differing: readonly number[]): void =>
  note(`${what}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);

/** Each of the two devices' windows, so often, and all of the memory once. */
const FEW = 64 * 256;

await check('QEMU 7.2 under run: the migration ends, and the memory is the same at both ends', async (bed) => {
  const pair = await DmaPair.start(bed, UNDER_RUN);
  const outcome = await pair.migrate();
  const differing = await pair.differingPages();
  tell('translated', outcome, differing);
  assert.equal(outcome.status, 'completed', outcome.why);
  assert.deepEqual(differing, []);
  assert.ok(outcome.written > 0);
  await pair.goOn();
});

await check('the control: with --dirty-log off it does not end', async (bed) => {
  const off = { ...OLD, shim: ['--present', 'v1', '--dirty-log', 'off'] };
  const pair = await DmaPair.start(bed, { ...UNDER_RUN, from: off });
  const outcome = await pair.migrate();
  tell('not translated', outcome, []);
  assert.equal(outcome.status, 'cancelled', outcome.why);
  assert.ok(outcome.pages > FEW, `${outcome.pages} pages were sent`);
  assert.equal(await pair.source.vm.status(), 'running');
});

await check('the control: a page that each REPORT forgets is another at the destination', async (bed) => {
  const pair = await DmaPair.start(bed, { ...UNDER_RUN, devices: 1, faults: FAULT.DROP });
  const outcome = await pair.migrate();
  const differing = await pair.differingPages();
  tell('control', outcome, differing);
  assert.equal(outcome.status, 'completed', outcome.why);
  assert.ok(differing.length > 0);
});

await check('a log that fails once is started again: nothing is lost', async (bed) => {
  const pair = await DmaPair.start(bed, { ...UNDER_RUN, devices: 1, lateFaults: FAULT.REPORT_ONCE });
  const outcome = await pair.migrate();
  const differing = await pair.differingPages();
  tell('failed once', outcome, differing);
  assert.equal(outcome.status, 'completed', outcome.why);
  assert.deepEqual(differing, []);
  assert.match(pair.source.vm.child.stderr, /the log of DMA could not be read and was started again: .*EIO/);
});

await check(
  'a log that cannot be started: the container is asked, once with a warning, and the VM runs on',
  async (bed) => {
    const pair = await DmaPair.start(bed, {
      ...UNDER_RUN,
      devices: 1,
      faults: FAULT.START_EOPNOTSUPP,
      limitMs: 10_000,
    });
    const outcome = await pair.migrate();
    tell('not started', outcome, []);
    assert.equal(outcome.status, 'cancelled', outcome.why);
    const said = pair.source.vm.child.stderr.match(/devices' logs of DMA are not used.*EOPNOTSUPP/g);
    assert.equal(said?.length, 1, pair.source.vm.child.stderr);
    assert.equal(await pair.source.vm.status(), 'running');
  },
);

await check('supervisors that are killed all the while lose nothing', async (bed) => {
  const pair = await DmaPair.start(bed, UNDER_RUN);
  let isOver = false;
  let kills = 0;
  const harass = async (): Promise<void> => {
    while (!isOver) {
      await killSupervisor('source');
      kills += 1;
    }
  };
  const harassed = harass();
  const outcome = await pair.migrate();
  isOver = true;
  await harassed;
  const differing = await pair.differingPages();
  tell(`${kills} supervisors killed`, outcome, differing);
  assert.equal(outcome.status, 'completed', outcome.why);
  assert.deepEqual(differing, []);
  assert.ok(kills > 1);
});

await check('QEMU 7.2 under run to QEMU 10.0 without us', async (bed) => {
  const pair = await DmaPair.start(bed, { ...UNDER_RUN, to: NEW });
  const outcome = await pair.migrate();
  const differing = await pair.differingPages();
  tell('to 10.0', outcome, differing);
  assert.equal(outcome.status, 'completed', outcome.why);
  assert.deepEqual(differing, []);
  await pair.goOn();
});
