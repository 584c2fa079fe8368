import assert from 'node:assert/strict';
import { check, note } from '../guest/check.ts';
import { DmaPair, type DmaMigration, type DmaOutcome } from '../guest/dma-migration.ts';
import { NEW, OLD } from '../guest/pair.ts';
import { FAULT } from '../guest/v2log.ts';

/**
 * As dirty-pages: what does not come to its end there, and what goes wrong.
 */

/** QEMU stops the VM if 32 MiB are left: more than the devices write to, and less than all of its 64 MiB. */
const parameters = { 'max-bandwidth': 32 * 2 ** 20, 'downtime-limit': 1000 };

const UNDER_RUN: DmaMigration = { from: OLD, to: OLD, devices: 2, pagesPerSecond: 1000, parameters };

const tell = (what: string, outcome: DmaOutcome, differing: readonly number[]): void =>
  note(`${what}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);

/** Two VMs, whose memory is pinned page by page, on an emulated processor. */
const SLOW = { ms: 240_000 };

/** Each of the two devices' windows, so often, and all of the memory once. */
const FEW = 64 * 256;

await check(
  'the control: with --dirty-log off it does not end',
  async (bed) => {
    const off = { ...OLD, shim: ['--present', 'v1', '--dirty-log', 'off'] };
    const pair = await DmaPair.start(bed, { ...UNDER_RUN, from: off });
    const outcome = await pair.migrate();
    tell('not translated', outcome, []);
    assert.equal(outcome.status, 'cancelled', outcome.why);
    assert.ok(outcome.pages > FEW, `${outcome.pages} pages were sent`);
    assert.equal(await pair.source.vm.status(), 'running');
  },
  SLOW,
);

await check(
  'a log that fails once is started again: nothing is lost',
  async (bed) => {
    const pair = await DmaPair.start(bed, {
      ...UNDER_RUN,
      devices: 1,
      lateFaults: FAULT.REPORT_ONCE,
      limitMs: 120_000,
    });
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('failed once', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    assert.match(pair.source.vm.child.stderr, /the log of DMA could not be read and was started again: .*EIO/);
  },
  SLOW,
);

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

await check(
  'QEMU 7.2 under run to QEMU 10.0 without us',
  async (bed) => {
    const pair = await DmaPair.start(bed, { ...UNDER_RUN, to: NEW, limitMs: 120_000 });
    const outcome = await pair.migrate();
    const differing = await pair.differingPages();
    tell('to 10.0', outcome, differing);
    assert.equal(outcome.status, 'completed', outcome.why);
    assert.deepEqual(differing, []);
    await pair.goOn();
  },
  SLOW,
);
