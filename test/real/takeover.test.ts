import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { arch } from '../../src/sys/libc.ts';
import { killHard } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import {
  CRAWL,
  FULL_SPEED,
  listen,
  migrateLive,
  setParameters,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { expectDevice, startPair } from '../../tools/vmm/pair.ts';
import { serving, startShimmedVm } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);

/** A supervisor's thread waits in two system calls, and before it serves in neither. */
const WAITS: ReadonlySet<string | undefined> = new Set([arch.syscalls.ioctl, arch.syscalls.ppoll].map(String));

function waitsForCalls(pid: number): boolean {
  try {
    return WAITS.has(readFileSync(`/proc/${pid}/syscall`, 'latin1').split(' ')[0]);
  } catch {
    return false; // gone meanwhile
  }
}

describeWithQemus(['7.2', '10.0'], 'a supervisor that is killed', () => {
  const bed = useTestBed();

  const bridged = [
    { title: 'QEMU 7.2 on a v2 driver', driver: 'qat', qemu: '7.2' },
    { title: 'QEMU 10.0 on a v1 driver', driver: 'vendor-v1', qemu: '10.0' },
  ] as const;
  describe.each(inShort(bridged, (_, n) => n === 0))('$title', ({ driver, qemu }) => {
    const device = { driver, size: '64M' };
    const start = (name: string, options = {}): Promise<Vm> =>
      startShimmedVm(bed(), name, [device], { qemu, ...options });

    /** One that has taken over: over the same call no more than three may die. */
    function supervisorOf(vm: Vm): Promise<number> {
      const first = (): number | undefined => serving(bed(), 'supervisor-main', vm).find(waitsForCalls);
      return poll(first, 30_000, () => `a supervisor of VM ${vm.name}${vm.child.lastWords}`);
    }

    async function killSupervisor(vm: Vm): Promise<void> {
      killHard(await supervisorOf(vm));
    }

    it('is replaced, again and again, while a VM migrates through both', { timeout: TIMEOUT }, async () => {
      const pair = await startPair(bed(), [device], { qemu });
      const { source, destination } = pair;
      const mark = await imprint(source);
      const migration = { goesOn: true };
      let kills = 0;
      const killing = (async () => {
        while (migration.goesOn) {
          for (const vm of [source, destination]) {
            await killSupervisor(vm);
            kills += 1;
          }
          await Promise.all([source, destination].map(supervisorOf));
          await sleep(800); // in which they serve, as long as a successor takes to start
        }
      })();
      try {
        const uri = await listen(destination, bed().path('migration'));
        await startMigration(source, uri, { parameters: CRAWL, returnPath: true });
        await poll(async () => (kills > 3 ? true : undefined), 30_000, 'supervisors to be killed in pre-copy');
        await setParameters(source, { ...FULL_SPEED, 'max-bandwidth': 2 ** 25 });
        await waitForMigration(source, 'completed', 60_000);
      } finally {
        migration.goesOn = false;
        await killing;
      }
      const { to, from } = await expectDevice(pair, mark);
      expect(to.bytesIn).toBe(from.bytesOut);
      expect(kills).toBeGreaterThan(3);
      expect(source.child.stderr).toContain('a successor takes over');
    });

    it.each(['before', 'in pre-copy'])('%s leaves a VM that migrates', { timeout: TIMEOUT }, async (when) => {
      const pair = await startPair(bed(), [device], { qemu });
      const { source, destination } = pair;
      const mark = await imprint(source);
      const uri = await listen(destination, bed().path('migration'));
      if (when === 'before') await killSupervisor(source);
      await startMigration(source, uri, { parameters: CRAWL, returnPath: true });
      if (when === 'in pre-copy') {
        await waitForMigration(source, 'active');
        await killSupervisor(source);
      }
      await setParameters(source, FULL_SPEED);
      await waitForMigration(source, 'completed', 60_000);
      await expectDevice(pair, mark);
    });

    it('with its keeper leaves a VM that runs on', { timeout: TIMEOUT }, async () => {
      const source = await start('source');
      await source.waitForFirmware();
      const mark = await imprint(source);
      for (const pid of serving(bed(), 'keeper-main', source)) killHard(pid);
      await killSupervisor(source);
      await source.waitForTicks();
      expect(await mismatches(source, mark)).toEqual([]);
      expect(await source.status()).toBe('running');
    });

    it('does not disturb a second migration', { timeout: TIMEOUT }, async () => {
      const source = await start('source');
      await source.waitForFirmware();
      const mark = await imprint(source);
      const second = await start('second', { incoming: true });
      await migrateLive(source, second, bed().path('second.migration'), { returnPath: true });
      await killSupervisor(second);
      const third = await start('third', { incoming: true });
      await migrateLive(second, third, bed().path('third.migration'), { returnPath: true });
      expect(await mismatches(third, mark)).toEqual([]);
    });
  });
});
