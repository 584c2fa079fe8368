import { expect, it } from 'vitest';
import {
  cancelMigration,
  listen,
  queryMigration,
  setParameters,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { expectDevice, startPair, type Pair } from '../../tools/vmm/pair.ts';
import { quitAndReport } from '../../tools/vmm/shim.ts';
import { AT_ONCE, HARDLY, LOOKS, looksOf, waitForLooks, withoutTimer } from '../../tools/vmm/switchover.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemu } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
const SIZE = 16 * 1024 * 1024;

describeWithQemu('what QEMU 7.2 knows of a v2 device before it stops the VM', () => {
  const bed = useTestBed();

  const start = (driver: string, run: readonly string[]): Promise<Pair> =>
    startPair(bed(), [{ driver, size: String(SIZE) }], { run });

  async function begin({ source, destination }: Pair): Promise<void> {
    const uri = await listen(destination, bed().path('migration'));
    await startMigration(source, uri, { parameters: HARDLY, returnPath: true });
  }

  /** The destination has the source's device. */
  async function expectArrived(pair: Pair, mark: Imprint): Promise<void> {
    const { from } = await expectDevice(pair, mark);
    expect(from.bytesOut).toBeGreaterThan(SIZE);
  }

  it('is nothing by default: it stops at once, for longer than the limit', { timeout: TIMEOUT }, async () => {
    const pair = await start('qat', []);
    const { source } = pair;
    const mark = await imprint(source);
    await begin(pair);
    const info = await waitForMigration(source, 'completed');
    expect(looksOf(info)).toBeLessThan(LOOKS);
    expect(info.downtime).toBeGreaterThan(HARDLY['downtime-limit']);
    await expectArrived(pair, mark);
  });

  it.each(['qat', 'pds'])(
    'is what stop-and-copy costs, with --count-stop-copy: %s is not stopped before the limit allows it',
    { timeout: TIMEOUT },
    async (driver) => {
      const pair = await start(driver, ['--count-stop-copy']);
      const { source } = pair;
      await begin(pair);
      const info = await waitForLooks(source);
      // of what the device has to send, query-migrate does not tell
      expect(info).toMatchObject({ status: 'active', ram: { remaining: 0 } });
      expect(await source.status()).toBe('running');
      await source.waitForTicks();
      const mark = await imprint(source);
      const again = await withoutTimer(source);
      await waitForLooks(source, info);
      expect(await queryMigration(source)).toMatchObject({ status: 'active' });

      // the bandwidth that QEMU measures is what it sends, next to nothing now: even 10 s were not enough
      await setParameters(source, AT_ONCE);
      await waitForMigration(source, 'completed');
      await again(pair.destination);
      await expectArrived(pair, mark);
    },
  );

  it('is enough to give up: cancelled, the VM runs on', { timeout: TIMEOUT }, async () => {
    const pair = await start('qat', ['--count-stop-copy']);
    const { source, destination } = pair;
    const mark = await imprint(source);
    await begin(pair);
    await waitForLooks(source);
    await cancelMigration(source);
    expect((await destination.waitForExit()).code).toBe(1);
    expect(await source.status()).toBe('running');
    await source.waitForTicks();
    expect(await mismatches(source, mark)).toEqual([]);
    const { states } = await quitAndReport(source);
    expect(states).toEqual(['RUNNING', 'PRE_COPY', 'RUNNING', 'STOP']);
  });

  it('does not hold up a VM that its user stops meanwhile', { timeout: TIMEOUT }, async () => {
    const pair = await start('qat', ['--count-stop-copy']);
    const { source, destination } = pair;
    const mark = await imprint(source);
    await begin(pair);
    const again = await withoutTimer(source);
    await waitForLooks(source);
    await source.stop();
    await waitForMigration(source, 'completed');
    await destination.waitForStatus('paused');
    await destination.cont();
    await again(destination);
    await expectArrived(pair, mark);
  });
});
