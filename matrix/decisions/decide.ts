import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { memorySource, readVfioFile } from '../../src/qemu-stream/index.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { queryMigration, startMigration, waitForMigration, type MigrationInfo } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf } from '../../tools/vmm/binaries.ts';
import { startShimmedVm } from '../../tools/vmm/shim.ts';
import { LOOKS, looksOf } from '../../tools/vmm/switchover.ts';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { DOWNTIME_LIMIT, driverOf, MIB, type Case, type Decision, type End } from './case.ts';

/**
 * Where the guest's memory is filled before, with what takes QEMU longer than the 100 ms in which it measures. If all of the memory is
 * sent in the first of them, QEMU knows no bandwidth yet, and QEMU 10.0 stops the VM without a look at the device.
 */
const FILLED = 16 * MIB;
const FILL_SECONDS = 0.25;

const MS = 120_000;

/** Lets a QEMU decide, in a bed of its own. The state goes to a file: a destination would decide nothing. */
export async function decide(each: Case, end: End): Promise<Decision> {
  const bed = new TestBed();
  try {
    const vm = await startShimmedVm(bed, 'vm', [{ driver: driverOf(each, end), size: String(each.size) }], {
      qemu: each.qemu,
      run: ['--present', protocolOf(each.qemu)],
    });
    await vm.waitForFirmware();
    await vm.memory.write(FILLED, randomBytes(each.bandwidth * FILL_SECONDS));
    const file = bed.path('state');
    await startMigration(vm, `exec:cat > ${file}.part && mv ${file}.part ${file}`, { parameters: parametersOf(each) });
    const info = await waitForDecision(vm, each);
    const rounds = looksOf(info);
    if (info.status !== 'completed') {
      const before = info.vfio?.transferred ?? 0;
      await vm.qmp.execute('migrate_cancel');
      await waitForMigration(vm, 'cancelled');
      return { stopped: false, rounds, before, behind: 0 };
    }
    await poll(() => (existsSync(file) ? true : undefined), MS, `${file} to be complete`);
    return { stopped: true, rounds, ...sentBy(file) };
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${bed.describe()}`, { cause: error });
  } finally {
    const left = await bed.cleanUp();
    if (left.length > 0) console.error(left.join('\n'));
  }
}

/** QEMU 10 is told the bandwidth by which it decides; QEMU 7.2 measures it. */
function parametersOf({ qemu, bandwidth }: Case) {
  const limits = { 'max-bandwidth': bandwidth, 'downtime-limit': DOWNTIME_LIMIT };
  return protocolOf(qemu) === 'v1' ? limits : { ...limits, 'avail-switchover-bandwidth': bandwidth };
}

/**
 * Waits until QEMU has completed, or has looked so often with nothing more to send that it is taken not to stop the VM. What it has sent
 * of a device QEMU 10 tells; QEMU 7.2 tells it at the end, and looks once for each buffer, which is a MiB or more.
 */
async function waitForDecision(vm: Vm, { size }: Case): Promise<MigrationInfo> {
  let since: MigrationInfo = {};
  let last: MigrationInfo = {};
  const ask = async (): Promise<MigrationInfo | undefined> => {
    last = await queryMigration(vm);
    if (last.status === 'completed') return last;
    if (last.vfio?.transferred !== since.vfio?.transferred) since = last;
    const before = last.vfio === undefined ? 2 * Math.ceil(size / MIB) : looksOf(since);
    // an idle guest dirties a little of its memory now and then
    return looksOf(last) >= before + LOOKS && last.ram?.remaining === 0 ? last : undefined;
  };
  return poll(ask, MS, () => `QEMU to decide; ${JSON.stringify(last)}${vm.child.lastWords}`);
}

/** What the driver gave before and after the VM was stopped: QEMU puts it into sections of different kinds. */
function sentBy(file: string): Pick<Decision, 'before' | 'behind'> {
  const sent = { before: 0, behind: 0 };
  readVfioFile(memorySource(readFileSync(file)), ({ kind }, records) => {
    for (const { tag, start, end } of records) {
      if (tag === 'DEV_DATA_STATE') sent[kind === 'end' ? 'behind' : 'before'] += end - start;
    }
  });
  return sent;
}
