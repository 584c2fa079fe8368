import assert from 'node:assert/strict';
import { check, note } from '../guest/check.ts';
import { DmaPair, type DmaMigration, type DmaOutcome } from '../guest/dma-migration.ts';
import { OLD } from '../guest/pair.ts';
import { killSupervisor } from '../guest/serving.ts';
import { FAULT } from '../guest/v2log.ts';

/**
 * An old VMM migrates while the devices of drivers that log write to its memory, all of which is pinned: the container calls everything
 * dirty at each look. QEMU 7.2, which knows of no driver's log, comes to the same end as QEMU 10.0, which reads it (dma-migration).
 */

/** QEMU stops the VM if 32 MiB are left: more than the devices write to, and less than all of its 64 MiB. */
const parameters = { 'max-bandwidth': 32 * 2 ** 20, 'downtime-limit': 1000 };

const UNDER_RUN: DmaMigration = { from: OLD, to: OLD, devices: 2, pagesPerSecond: 1000, parameters, limitMs: 120_000 };

const tell = (what: string, outcome: DmaOutcome, differing: readonly number[]): void =>
  note(`${what}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);

/** Two VMs, whose memory is pinned page by page, on an emulated processor. */
const SLOW = { ms: 240_000 };

await check(
  'QEMU 7.2 under run: the migration ends, and the memory is the same at both ends',
  async (bed) => {
    const pair = await DmaPair.start(bed, UNDER_RUN);
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('translated', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    assert.ok(outcome.written > 0);
    await pair.goOn();
  },
  SLOW,
);

await check(
  'the control: a page that each REPORT forgets is another at the destination',
  async (bed) => {
    const pair = await DmaPair.start(bed, { ...UNDER_RUN, devices: 1, faults: FAULT.DROP });
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('control', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.ok(differing.length > 0);
  },
  SLOW,
);

await check(
  'supervisors that are killed while QEMU looks for dirty memory lose nothing',
  async (bed) => {
    const pair = await DmaPair.start(bed, UNDER_RUN);
    const harass = async (): Promise<void> => {
      for (let kills = 0; kills < 3; kills += 1) await killSupervisor('source');
    };
    const [outcome] = await Promise.all([pair.migrate(), harass()]);
    const differing = await pair.differingPages();
    tell('supervisors killed', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    assert.equal(pair.source.vm.child.stderr.match(/a successor takes over/g)?.length, 3);
  },
  SLOW,
);
