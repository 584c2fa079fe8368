import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { memorySource, readVfioFile } from '../../src/qemu-stream/index.ts';
import { DMA_MAGIC, DMA_PAGE, dma_record, dmaPage } from '../../src/sim/dma.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { cancelMigration, queryMigration, startMigration, type MigrationInfo } from '../../src/vmm/migration.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf } from '../../tools/vmm/binaries.ts';
import { makeBusMaster } from '../../tools/vmm/guest-ram.ts';
import { startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import { LOOKS, looksOf } from '../../tools/vmm/switchover.ts';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { DMA_WINDOW, DOWNTIME_LIMIT, driverOf, MIB, type Case, type Decision, type End } from './case.ts';
import { looksIn, lookTraces } from './looks.ts';

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
    const vm = await startShimmedVm(bed, 'vm', [deviceOf(each, end)], {
      qemu: each.qemu,
      run: ['--present', protocolOf(each.qemu)],
      args: lookTraces(each.qemu).flatMap((event) => ['-trace', event]),
    });
    await vm.waitForFirmware();
    if (each.dma !== undefined) await beginDma(vm);
    await vm.memory.write(FILLED, randomBytes(each.bandwidth * FILL_SECONDS));
    const file = bed.path('state');
    await startMigration(vm, `exec:cat > ${file}.part && mv ${file}.part ${file}`, { parameters: parametersOf(each) });
    const info = await waitForDecision(vm, each);
    const rounds = looksOf(info);
    if (info.status !== 'completed') {
      const before = info.vfio?.transferred;
      await cancelMigration(vm);
      return { stopped: false, rounds, before, behind: 0, ...(await seenBy(vm)) };
    }
    await poll(() => (existsSync(file) ? true : undefined), MS, `${file} to be complete`);
    return { stopped: true, rounds, ...sentBy(file), ...(await seenBy(vm)) };
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${bed.describe()}`, { cause: error });
  } finally {
    const left = await bed.cleanUp();
    if (left.length > 0) console.error(left.join('\n'));
  }
}

function deviceOf(each: Case, end: End): DeviceOptions {
  const { at, size } = DMA_WINDOW;
  const dma = each.dma === undefined ? {} : { dma: each.dma, dmaAt: `${at}+${size}` };
  return { driver: driverOf(each, end), size: String(each.size), ...dma };
}

/** Lets the device write to memory, and waits until it does. */
async function beginDma(vm: Vm): Promise<void> {
  await makeBusMaster(vm, VFIO_SLOT);
  const first = DMA_WINDOW.at + DMA_PAGE * dmaPage({ seed: 0, device: 0 }, 0, DMA_WINDOW.size / DMA_PAGE);
  const isWritten = async (): Promise<true | undefined> =>
    dma_record.decode(await vm.memory.read(first, dma_record.size)).magic === DMA_MAGIC ? true : undefined;
  await poll(isWritten, MS, () => `the device to write to 0x${first.toString(16)}${vm.child.lastWords}`);
}

/** What QEMU has looked at, by its own trace, which is whole once QEMU has ended. */
async function seenBy(vm: Vm): Promise<Pick<Decision, 'last' | 'dirty'>> {
  await vm.quit(MS);
  const looks = looksIn(vm.child.stderr);
  const last = looks.at(-1);
  if (last === undefined) throw new Error('QEMU has traced no look at what is pending');
  const dirty = looks.map(({ pending, device }) => pending - device).toSorted((a, b) => a - b);
  return { last, dirty: dirty[dirty.length >> 1] ?? 0 };
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
async function waitForDecision(vm: Vm, { size, dma }: Case): Promise<MigrationInfo> {
  let since: MigrationInfo = {};
  let last: MigrationInfo = {};
  const ask = async (): Promise<MigrationInfo | undefined> => {
    last = await queryMigration(vm);
    if (last.status === 'completed') return last;
    if (last.vfio?.transferred !== since.vfio?.transferred) since = last;
    const before = last.vfio === undefined ? 2 * Math.ceil(size / MIB) : looksOf(since);
    // an idle guest dirties a little of its memory now and then
    const isIdle = dma !== undefined || last.ram?.remaining === 0;
    return looksOf(last) >= before + LOOKS && isIdle ? last : undefined;
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
