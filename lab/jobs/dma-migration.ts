import assert from 'node:assert/strict';
import { check, note } from '../guest/check.ts';
import { DmaPair, type DmaMigration, type DmaOutcome } from '../guest/dma-migration.ts';
import { NEW, OLD } from '../guest/pair.ts';
import { FAULT } from '../guest/v2log.ts';

/**
 * Memory that devices write to arrives as it was. QEMU 10.0 is the yardstick, which reads the log of v2log itself with nothing of ours
 * between them.
 */

const NATIVE: DmaMigration = { from: NEW, to: NEW, devices: 2, pagesPerSecond: 1000, limitMs: 120_000 };
/** Two VMs, whose memory is pinned page by page, on an emulated processor. */
const SLOW = { ms: 240_000 };

const tell = (what: string, outcome: DmaOutcome, differing: readonly number[]): void =>
  note(`${what}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);

await check(
  'QEMU 10.0 migrates two devices that write to its memory',
  async (bed) => {
    const pair = await DmaPair.start(bed, NATIVE);
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('native', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    assert.ok(outcome.written > 0 && outcome.looks >= 5);
    await pair.goOn();
  },
  SLOW,
);

await check(
  'the control: a page that each REPORT forgets is another at the destination',
  async (bed) => {
    const pair = await DmaPair.start(bed, { ...NATIVE, faults: FAULT.DROP });
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('control', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    const dropped = await Promise.all(pair.source.registers.map((each) => each.dropped()));
    assert.ok(
      dropped.every((count) => count > 0),
      `${dropped.join()} pages were forgotten`,
    );
    assert.ok(differing.length > 0);
  },
  SLOW,
);

await check(
  'a log that is lost fails the migration, and the VM runs on',
  async (bed) => {
    const pair = await DmaPair.start(bed, { ...NATIVE, devices: 1, faults: FAULT.REPORT });
    const { status, why } = await pair.migrate();
    assert.equal(status, 'failed');
    assert.match(why ?? '', /Input\/output error/);
    assert.equal(await pair.source.vm.status(), 'running');
  },
  SLOW,
);

await check(
  'QEMU 7.2 under run that looks for dirty memory after the stop alone',
  async (bed) => {
    const late = { ...OLD, options: { vfioProperties: ['x-pre-copy-dirty-page-tracking=off'] } };
    const pair = await DmaPair.start(bed, { ...NATIVE, devices: 1, from: late, to: late });
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('7.2 under run', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    await pair.goOn();
  },
  SLOW,
);
