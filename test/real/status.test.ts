import { expect, it } from 'vitest';
import { parseStatus, type DeviceStatus } from '../../src/interpose/process/status.ts';
import type { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { listen, setParameters, FULL_SPEED, startMigration } from '../../src/vmm/migration.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { waitForMigrationEnd } from '../../tools/vmm/events.ts';
import { quitAndReport, startShimmedVm } from '../../tools/vmm/shim.ts';
import { OK } from '../support/cli-run.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemu } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(300_000);
const MIB = 2 ** 20;
/** Slow enough that whoever asks twice a second sees pre-copy go on. */
const SLOW = { 'max-bandwidth': 16 * MIB, 'downtime-limit': 1 };

describeWithQemu('a migration of QEMU 7.2 that is followed', () => {
  const bed = useTestBed();

  it.each([
    ['virtio', 64, ['--count-stop-copy'], 'v2'],
    ['vendor-v1', 192, [], 'v1'],
  ] as const)(
    '%s with %d MiB: the numbers grow, and end at what QEMU has read',
    { timeout: TIMEOUT },
    async (driver, mib, run, protocol) => {
      const socket = (name: string): string => bed().path(`${name}.status`);
      const start = (name: string, seed: number, incoming: boolean) =>
        startShimmedVm(bed(), name, [{ driver, size: `${mib}M`, seed }], {
          incoming,
          run: ['--present', 'v1', '--status', socket(name), ...run],
          patience: TIMEOUT,
        });
      const [source, destination] = [await start('source', 7, false), await start('destination', 0, true)];
      await source.waitForFirmware();
      const follow = (name: string): Child =>
        bed().spawn([process.execPath, CLI, 'status', socket(name), '--follow', '--json']);
      const [saved, loaded] = [follow('source'), follow('destination')];
      const seen = ({ stdout }: Child): DeviceStatus[] =>
        stdout
          .split('\n')
          .filter((line) => line !== '')
          .flatMap((line) => parseStatus(line).devices);
      const until = (what: string, child: Child, is: (seen: readonly DeviceStatus[]) => boolean): Promise<true> =>
        poll(
          () => (is(seen(child)) ? true : undefined),
          TIMEOUT,
          () => `${what}: ${child.stdout.slice(-2000)}${child.stderr}`,
        );
      const moving = (all: readonly DeviceStatus[]): DeviceStatus[] =>
        all.filter(({ state, bytesDone }) => state === 'PRE_COPY' && bytesDone !== null && bytesDone > 0);

      await startMigration(source, await listen(destination, bed().path('migration')), { parameters: SLOW });
      await until('pre-copy goes on', saved, (all) => new Set(moving(all).map(({ bytesDone }) => bytesDone)).size >= 3);
      await setParameters(source, FULL_SPEED);
      // the monitor does not answer while QEMU moves the state of a stopped VM
      for (const vm of [source, destination]) await waitForMigrationEnd(vm, TIMEOUT);
      await until('the end is shown', saved, (all) => all.at(-1)?.phase === null && all.at(-1)?.bytesDone !== null);
      await until('the end is shown', loaded, (all) => all.at(-1)?.phase === null && all.at(-1)?.bytesDone !== null);
      const reports = [await quitAndReport(source), await quitAndReport(destination)];
      expect(await Promise.all([saved.exited, loaded.exited])).toEqual([OK, OK]);

      const [ours, theirs] = [seen(saved), seen(loaded)];
      expect(new Set(ours.map((device) => device.protocol))).toEqual(new Set([protocol]));
      const done = ours.flatMap(({ bytesDone }) => bytesDone ?? []);
      expect(done).toEqual(done.toSorted((a, b) => a - b));
      expect([done.at(-1), theirs.at(-1)?.bytesDone]).toEqual([reports[0]?.bytesOut, reports[1]?.bytesIn]);
      expect(done.at(-1)).toBeGreaterThanOrEqual(mib * MIB);
      for (const { bytesLeft, bytesPerSecond, stopCopyBytes, downtimeMs } of moving(ours)) {
        expect(bytesLeft).toBeLessThanOrEqual(2 * mib * MIB);
        expect(stopCopyBytes).toBeLessThanOrEqual(2 * mib * MIB);
        if (stopCopyBytes === null || bytesPerSecond === null) expect(downtimeMs).toBe(null);
        else expect(downtimeMs).toBe(Math.round((stopCopyBytes / bytesPerSecond) * 1000));
      }
      expect(moving(ours).filter(({ downtimeMs }) => downtimeMs !== null).length).toBeGreaterThan(0);
    },
  );
});
