import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';
import {
  cancelMigration,
  FINAL,
  listen,
  queryMigration,
  setParameters,
  startMigration,
  type MigrationInfo,
  type MigrationParameters,
} from '../../src/vmm/migration.ts';
import { MEMORY_MIB, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { HARDLY, looksOf } from '../../tools/vmm/switchover.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import type { End } from './pair.ts';
import { GuestRegisters, PAGE, V2Log, type Pages } from './v2log.ts';
import { underShim } from './vm.ts';

/** VMs migrate while their devices write to their memory. */

/** How a VM is migrated whose v2log devices write. */
export interface DmaMigration {
  readonly from: End;
  readonly to: End;
  readonly devices: number;
  /** What each device writes to in a second, in a part of the memory of its own. */
  readonly pagesPerSecond: number;
  /** Of the source's devices: FAULT, from when the migration begins. */
  readonly faults?: number;
  /** The same, from when QEMU has looked for dirty memory twice. */
  readonly lateFaults?: number;
  /** QEMU has to look for dirty memory so often before it may stop the VM. Default: 5. */
  readonly looks?: number;
  /** From then on, QEMU stops the VM if the rest takes less than these say. */
  readonly parameters?: MigrationParameters;
  /** A migration that takes longer is cancelled. Default: 30 s. */
  readonly limitMs?: number;
}

/** What came of it, with the source's own numbers. */
export interface DmaOutcome {
  readonly status: 'completed' | 'cancelled' | 'failed';
  readonly why: string | undefined;
  /** Looks for dirty memory (`dirty-sync-count`). */
  readonly looks: number;
  readonly downtimeMs: number | undefined;
  readonly elapsedMs: number;
  /** Pages that were sent, and of these those that were not all zeros. */
  readonly pages: number;
  readonly normalPages: number;
  /** Pages that the devices have written to meanwhile, each as often as it was. */
  readonly written: number;
}

/** A VM with v2log devices. */
export interface DmaVm {
  readonly vm: Vm;
  readonly registers: readonly GuestRegisters[];
}

const MiB = 2 ** 20;
/** The guest's memory where hardware may write to it: without what the firmware maps otherwise. */
const RAM: readonly Pages[] = [
  { iova: 0, pages: (640 * 1024) / PAGE },
  { iova: MiB, pages: ((MEMORY_MIB - 1) * MiB) / PAGE },
];
/** What a device writes to: memory that the firmware does not use. */
const windowOf = (device: number): Pages => ({ iova: (16 + 4 * device) * MiB, pages: (4 * MiB) / PAGE });

/** A second of downtime at a gibibyte a second. */
const MODERATE: MigrationParameters = { 'max-bandwidth': 2 ** 30, 'downtime-limit': 1000 };

const firmwareFile = (bed: TestBed, name: string): string => bed.path(`${name}.firmware`);

/** Has what SeaBIOS says go to a file. */
function firmwareLog(bed: TestBed, name: string): string[] {
  const chardev = `file,id=firmware,path=${firmwareFile(bed, name)}`;
  return ['-chardev', chardev, '-device', 'isa-debugcon,iobase=0x402,chardev=firmware'];
}

/**
 * Waits until SeaBIOS has nothing left to do: before, it makes its memory read-only, upon which QEMU maps all memory anew, and nothing
 * of that is pinned any more.
 */
async function waitForEndOfFirmware(bed: TestBed, { vm }: DmaVm): Promise<void> {
  await vm.waitForFirmware();
  const said = (): string => readFileSync(firmwareFile(bed, vm.name), 'latin1');
  await poll(
    () => (said().includes('No bootable device') ? true : undefined),
    30_000,
    () => `the firmware to give up: ${said()}`,
  );
}

/** Starts a VM with new v2log devices. */
async function startDmaVm(
  bed: TestBed,
  name: string,
  end: End,
  devices: number,
  options: { readonly incoming?: boolean; readonly paused?: boolean } = {},
): Promise<DmaVm> {
  const vfio = Array.from({ length: devices }, () => new V2Log().sysfs);
  const prefix = end.shim === undefined ? {} : { prefix: underShim(name, ...end.shim) };
  const args = [...firmwareLog(bed, name), ...(end.options?.args ?? [])];
  const vm = await bed.startVm(name, { qemu: end.qemu, ...prefix, ...end.options, ...options, args, vfio });
  return { vm, registers: vfio.map((_, device) => new GuestRegisters(vm, VFIO_SLOT + device)) };
}

const countersOf = ({ registers }: DmaVm): Promise<number[]> => Promise.all(registers.map((each) => each.counter()));
const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

/** Two VMs, the one to be migrated to the other, whose devices have the whole memory pinned and write to it. */
export class DmaPair {
  readonly source: DmaVm;
  /** Paused: its devices do not write before they are told to. */
  readonly destination: DmaVm;
  readonly #bed: TestBed;
  readonly #migration: DmaMigration;
  readonly #marks: readonly Imprint[];

  private constructor(bed: TestBed, migration: DmaMigration, vms: readonly [DmaVm, DmaVm], marks: readonly Imprint[]) {
    [this.source, this.destination] = vms;
    this.#bed = bed;
    this.#migration = migration;
    this.#marks = marks;
  }

  /** Starts both; every page that a device writes to has been written to once. */
  static async start(bed: TestBed, migration: DmaMigration): Promise<DmaPair> {
    const { from, to, devices, pagesPerSecond } = migration;
    const [source, destination] = await Promise.all([
      startDmaVm(bed, 'source', from, devices),
      startDmaVm(bed, 'destination', to, devices, { incoming: true, paused: true }),
    ]);
    await waitForEndOfFirmware(bed, source);
    const marks: Imprint[] = [];
    for (const [device, registers] of source.registers.entries()) {
      marks.push(await imprint(source.vm, VFIO_SLOT + device));
      for (const part of RAM) await registers.pin(part);
      await registers.startWriter(windowOf(device), pagesPerSecond);
    }
    for (const [device, registers] of source.registers.entries()) {
      const all = async (): Promise<true | undefined> =>
        (await registers.counter()) >= windowOf(device).pages ? true : undefined;
      await poll(all, 30_000, `device ${device} to have written to each page`);
    }
    return new DmaPair(bed, migration, [source, destination], marks);
  }

  /** Migrates, or cancels a migration that does not come to its end. */
  async migrate(): Promise<DmaOutcome> {
    const { faults = 0, lateFaults = 0, looks = 5, parameters = MODERATE, limitMs = 30_000 } = this.#migration;
    const { vm, registers } = this.source;
    for (const each of registers) await each.setFaults(faults);
    const before = sum(await countersOf(this.source));
    const begin = performance.now();
    const until = (done: (info: MigrationInfo) => boolean): Promise<MigrationInfo> =>
      watch(vm, (info) => done(info) || performance.now() > begin + limitMs);
    const uri = await listen(this.destination.vm, this.#bed.path('migration'));
    await startMigration(vm, uri, { parameters: HARDLY, returnPath: true });
    if (lateFaults !== 0) {
      await until((info) => looksOf(info) >= 2);
      for (const each of registers) await each.setFaults(faults | lateFaults);
    }
    await until((info) => looksOf(info) >= looks);
    await setParameters(vm, parameters);
    let info = await until(() => false);
    if (!isFinal(info)) {
      info = { ...info, ...(await cancelMigration(vm)) };
    }
    await assertPinned(this.source);
    const written = sum(await countersOf(this.source)) - before;
    return { ...outcomeOf(info), elapsedMs: Math.round(performance.now() - begin), written };
  }

  /** The numbers of the pages that differ, while both VMs are stopped. */
  async differingPages(): Promise<number[]> {
    const found: number[] = [];
    for (const part of RAM) {
      const [here, there] = await Promise.all([
        memoryOf(this.source.vm, this.#bed, part),
        memoryOf(this.destination.vm, this.#bed, part),
      ]);
      for (let page = 0; page < part.pages; page += 1) {
        const [begin, end] = [page * PAGE, (page + 1) * PAGE];
        if (here.compare(there, begin, end, begin, end) !== 0) found.push(part.iova / PAGE + page);
      }
    }
    return found;
  }

  /** Has the destination go on; throws unless its devices have the source's state, and write on. */
  async goOn(): Promise<void> {
    const { vm, registers } = this.destination;
    const counters = await countersOf(this.source);
    await vm.cont();
    await vm.waitForStatus('running');
    for (const [device, each] of registers.entries()) {
      const wrong = await mismatches(vm, this.#marks[device] ?? new Map(), VFIO_SLOT + device);
      if (wrong.length > 0) throw new Error(`device ${device}: its memory differs at ${wrong.join(', ')}`);
      const [had = 0, has] = [counters[device], await each.counter()];
      if (has < had) throw new Error(`device ${device}: has written ${has} pages, and ${had} at the source`);
      const more = async (): Promise<true | undefined> => ((await each.counter()) > has ? true : undefined);
      await poll(more, 20_000, `device ${device} to write on`);
    }
    await vm.waitForTicks();
  }
}

/** All memory has been pinned all the time: whatever asks type 1 alone is told that all of it is dirty. */
async function assertPinned({ registers }: DmaVm): Promise<void> {
  const all = sum(RAM.map(({ pages }) => pages));
  for (const each of registers) assert.equal(await each.pinned(), all, 'pages that are pinned');
}

const isFinal = ({ status }: MigrationInfo): boolean => status !== undefined && FINAL.has(status);

/** Asks how a migration goes until it has ended, or as is asked for. */
function watch(vm: Vm, enough: (info: MigrationInfo) => boolean): Promise<MigrationInfo> {
  const ask = async (): Promise<MigrationInfo | undefined> => {
    const info = await queryMigration(vm);
    return isFinal(info) || enough(info) ? info : undefined;
  };
  return poll(ask, 60_000, 'the migration to end');
}

/** What query-migrate tells of memory besides (qapi/migration.json: MigrationStats). */
interface PageCounts {
  readonly normal: number;
  readonly duplicate: number;
}

function outcomeOf(info: MigrationInfo): Omit<DmaOutcome, 'elapsedMs' | 'written'> {
  const { status, downtime, ram } = info;
  if (status !== 'completed' && status !== 'cancelled' && status !== 'failed') throw new Error(`${status}, not ended`);
  const { normal = 0, duplicate = 0 } = (ram ?? {}) as Partial<PageCounts>;
  return {
    status,
    why: info['error-desc'],
    looks: looksOf(info),
    downtimeMs: downtime,
    pages: normal + duplicate,
    normalPages: normal,
  };
}

/** A part of a VM's memory. */
async function memoryOf(vm: Vm, bed: TestBed, { iova, pages }: Pages): Promise<Buffer> {
  const file = bed.path(`${vm.name}.memory`);
  await vm.qmp.execute('pmemsave', { val: iova, size: pages * PAGE, filename: file }, 60_000);
  try {
    return readFileSync(file);
  } finally {
    rmSync(file);
  }
}
