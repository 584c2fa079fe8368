import assert from 'node:assert/strict';
import { migrateLive } from '../src/vmm/migration.ts';
import { VFIO_SLOT } from '../src/vmm/qemu-command.ts';
import type { Vm } from '../src/vmm/vm.ts';
import { missingQemu, protocolOf, type QemuVersion } from '../tools/vmm/binaries.ts';
import { diskArgs, makeDisk } from '../tools/vmm/disk.ts';
import { imprint, mismatches, type Imprint } from '../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../tools/vmm/migration-file.ts';
import { expectDevice } from '../tools/vmm/pair.ts';
import { expectArrived, startPlainSource, startPlainVm } from '../tools/vmm/plain.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions } from '../tools/vmm/shim.ts';
import { TestBed, type VmOptions } from '../tools/vmm/test-bed.ts';
import type { Cell, MatrixDevice, Outcome } from './cell.ts';

const DEVICES: Readonly<Record<Exclude<MatrixDevice, 'none'>, DeviceOptions>> = {
  qat: { driver: 'qat', size: '4M' },
  mtty: { driver: 'mtty', size: '8' },
  pds: { driver: 'pds', size: '4M' },
  'vendor-v1': { driver: 'vendor-v1', size: '4M' },
};

/** What is behind BAR 0 if that is less than the BAR: the registers of mtty's first port. */
const MEMORY: Readonly<Partial<Record<MatrixDevice, number>>> = { mtty: 8 };

/** Runs a cell in a bed of its own. A process that outlives it is a failure. */
export async function runCell(cell: Cell): Promise<Outcome> {
  const missing = [...new Set([cell.from, cell.to])].flatMap((version) => missingQemu(version) ?? []);
  if (missing.length > 0) return { verdict: 'not run', words: missing.join('; ') };
  const bed = new TestBed();
  const outcome = await new Attempt(bed, cell).outcome();
  const left = await bed.cleanUp();
  if (left.length === 0 || outcome.verdict === 'fails') return outcome;
  return { verdict: 'fails', words: 'processes outlived the cell', story: left.join('\n') };
}

class Attempt {
  readonly #bed: TestBed;
  readonly #cell: Cell;
  /** What both ends printed, and said by their monitors. */
  readonly #vms: Vm[] = [];
  #mark: Imprint | undefined;

  constructor(bed: TestBed, cell: Cell) {
    this.#bed = bed;
    this.#cell = cell;
  }

  async outcome(): Promise<Outcome> {
    const { refusal } = this.#cell;
    try {
      return { verdict: 'works', sha256: await this.#migrate() };
    } catch (error) {
      const words = this.#withoutDirectory((error as Error).message);
      const story = this.#withoutDirectory(this.#bed.describe());
      if (refusal === undefined || !`${words}\n${story}`.includes(refusal)) return { verdict: 'fails', words, story };
    }
    try {
      await this.#expectSourceGoesOn();
      return { verdict: 'refused', words: refusal };
    } catch (error) {
      return { verdict: 'fails', words: `refused, and then: ${(error as Error).message}` };
    }
  }

  #withoutDirectory(text: string): string {
    return text.replaceAll(this.#bed.directory, 'DIR');
  }

  /** Returns the hash of the device's memory, the same at both ends. */
  async #migrate(): Promise<string | undefined> {
    if (this.#cell.device === 'none') return this.#migratePlain();
    if (this.#cell.way === 'savevm') return this.#throughSnapshot(this.#cell.device);
    const both = [this.#start('source'), ...(this.#cell.way === 'live' ? [this.#startDestination()] : [])];
    const [source, waiting] = await Promise.all(both);
    assert.ok(source !== undefined);
    const mark = await this.#imprint(source, this.#cell.device);
    const destination = await this.#transfer(source, waiting);
    const { from, to } = await expectDevice({ source, destination }, mark);
    assert.ok(from.bytesOut > 0, 'the source has sent nothing');
    assert.equal(to.bytesIn, from.bytesOut, 'the destination has not got what the source has sent');
    this.#expectTraces(source, this.#cell.sourceTraces);
    this.#expectTraces(destination, this.#cell.destinationTraces);
    return to.sha256 ?? undefined;
  }

  /** Without a VFIO device: the guest goes on where it was, with what it had in another device's memory. */
  async #migratePlain(): Promise<undefined> {
    const { from, machine } = this.#cell;
    const { source, ...mark } = await startPlainSource(this.#bed, { qemu: from, machine });
    this.#vms.push(source);
    await expectArrived(await this.#transfer(source), mark);
  }

  /** Boots a VM and writes into its device, whose state no other run has then. */
  async #imprint(source: Vm, device: keyof typeof DEVICES): Promise<Imprint> {
    await source.waitForFirmware();
    return (this.#mark = await imprint(source, VFIO_SLOT, MEMORY[device]));
  }

  async #transfer(source: Vm, waiting?: Vm): Promise<Vm> {
    const { way, withoutReturnPath = false } = this.#cell;
    assert.ok(way !== 'savevm');
    await this.#setCapabilities(source);
    if (way === 'live') {
      const destination = waiting ?? (await this.#startDestination());
      const socket = this.#bed.path('migration');
      await migrateLive(source, destination, socket, { returnPath: !withoutReturnPath });
      return destination;
    }
    await migrateToFile(source, this.#bed.path('state'), way);
    const destination = await this.#startDestination();
    await loadFromFile(destination, this.#bed.path('state'), way);
    return destination;
  }

  /** The disk is one VM's at a time. */
  async #throughSnapshot(device: keyof typeof DEVICES): Promise<string | undefined> {
    const disk = this.#bed.path('disk');
    await makeDisk(this.#bed, disk, 'qcow2');
    const source = await this.#start('source', { args: diskArgs(disk, 'qcow2') });
    const mark = await this.#imprint(source, device);
    assert.equal(await source.qmp.hmp('savevm one'), '');
    const from = await quitAndReport(source);
    const destination = await this.#start('destination', { args: [...diskArgs(disk, 'qcow2'), '-loadvm', 'one'] });
    await destination.waitForStatus('running');
    await destination.waitForTicks();
    assert.deepEqual(await mismatches(destination, mark), []);
    const to = await quitAndReport(destination);
    assert.equal(to.sha256, from.sha256);
    assert.equal(to.bytesIn, from.bytesOut, 'the destination has not got what the source has sent');
    return to.sha256 ?? undefined;
  }

  async #startDestination(): Promise<Vm> {
    const destination = await this.#start('destination', { incoming: true });
    await this.#setCapabilities(destination);
    return destination;
  }

  async #start(name: 'source' | 'destination', more: VmOptions = {}): Promise<Vm> {
    const { from, to, machine, device, properties = [], fromRun, toRun } = this.#cell;
    const qemu = name === 'source' ? from : to;
    const traces = (name === 'source' ? this.#cell.sourceTraces : this.#cell.destinationTraces) ?? [];
    const args = [...traces.flatMap((event) => ['-trace', event]), ...(more.args ?? [])];
    const options = { ...more, qemu, machine, args, vfioProperties: properties };
    const run = (name === 'source' ? fromRun : toRun) ?? presented(qemu);
    const vm =
      device === 'none'
        ? await startPlainVm(this.#bed, name, options)
        : await startShimmedVm(this.#bed, name, [DEVICES[device]], { ...options, run });
    this.#vms.push(vm);
    return vm;
  }

  /** startMigration sets return-path; a destination must have it for switchover-ack. */
  async #setCapabilities(vm: Vm): Promise<void> {
    const wanted = this.#cell.capabilities ?? [];
    if (wanted.length === 0) return;
    const capabilities = wanted.map((capability) => ({ capability, state: true }));
    await vm.qmp.execute('migrate-set-capabilities', { capabilities });
  }

  #expectTraces(vm: Vm, events: readonly string[] = []): void {
    for (const event of events) assert.match(vm.child.stderr, new RegExp(`^${event}\\b`, 'm'), `no ${event}`);
  }

  /** A live migration that is refused costs nothing: the guest runs on, with all that its device had. */
  async #expectSourceGoesOn(): Promise<void> {
    const source = this.#vms.find(({ name }) => name === 'source');
    if (source === undefined || this.#cell.way !== 'live') return;
    await source.waitForStatus('running');
    await source.waitForTicks();
    if (this.#mark !== undefined) assert.deepEqual(await mismatches(source, this.#mark), []);
  }
}

/** Each QEMU is shown what it speaks: the device's own protocol, or the other by the bridge. */
function presented(qemu: QemuVersion): readonly string[] {
  return ['--present', protocolOf(qemu)];
}
