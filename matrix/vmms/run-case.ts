import { readFileSync } from 'node:fs';
import { judgeRecording, type Judgement } from '../../src/check/index.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { cancelMigration, CRAWL, FINAL, listen, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf } from '../../tools/vmm/binaries.ts';
import { serving, startShimmedVm } from '../../tools/vmm/shim.ts';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { deviceOf, type Case, type End } from './cases.ts';

/** What became of a case: how the migration ended by QEMU's word, and what is to be said of both ends. */
export interface Outcome {
  readonly status: string;
  readonly source: Judgement;
  readonly destination: Judgement;
}

/** Migrates a VM, records both ends, and judges them. */
export async function runCase(one: Case): Promise<Outcome> {
  const bed = new TestBed();
  try {
    return await runIn(bed, one);
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${bed.describe()}`, { cause: error });
  } finally {
    await bed.cleanUp();
  }
}

async function runIn(bed: TestBed, one: Case): Promise<Outcome> {
  const source = await start(bed, one, 'source');
  await source.waitForFirmware();
  const destination = await start(bed, one, 'destination');
  const isCancelled = one.what === 'is cancelled';
  const options = { returnPath: true, ...(isCancelled && { parameters: CRAWL }) };
  await startMigration(source, await listen(destination, bed.path('migration')), options);
  const status = isCancelled ? await cancel(source) : await ended(source);
  if (status === 'completed') await waitForMigration(destination, 'completed');
  else await source.waitForTicks(); // it goes on
  for (const vm of [source, destination]) await end(bed, vm);
  return { status, source: judged(bed, 'source'), destination: judged(bed, 'destination') };
}

function start(bed: TestBed, one: Case, name: End): Promise<Vm> {
  const run = ['--present', protocolOf(one.qemu), '--record', bed.path(`${name}.jsonl`)];
  return startShimmedVm(bed, name, [deviceOf(one, name)], {
    qemu: one.qemu,
    machine: 'pc',
    incoming: name === 'destination',
    run,
  });
}

async function ended(source: Vm): Promise<string> {
  const { status = '' } = await waitForMigration(source, 'completed', 60_000, ({ status: now = '' }) => FINAL.has(now));
  return status;
}

/** Once something was sent. */
async function cancel(source: Vm): Promise<string> {
  await waitForMigration(source, 'active', undefined, ({ ram }) => (ram?.transferred ?? 0) > 0);
  const { status = '' } = await cancelMigration(source);
  return status;
}

/** Ends a VM, which may have ended by itself, and waits until its recording is whole. */
async function end(bed: TestBed, vm: Vm): Promise<void> {
  if (vm.child.fate === undefined) await vm.quit().catch(() => {});
  const isGone = (): true | undefined => (serving(bed, 'keeper-main', vm).length === 0 ? true : undefined);
  await poll(isGone, 30_000, () => `the keeper of ${vm.name} ends`);
}

function judged(bed: TestBed, name: End): Judgement {
  return judgeRecording([readFileSync(bed.path(`${name}.jsonl`))]);
}
