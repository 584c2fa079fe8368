import assert from 'node:assert/strict';
import { fulfilled, poll } from '../src/vmm/deadline.ts';
import { cancelMigration, listen, migrateLive, startMigration } from '../src/vmm/migration.ts';
import { VFIO_SLOT } from '../src/vmm/qemu-command.ts';
import type { Vm } from '../src/vmm/vm.ts';
import { missingQemu, protocolOf, type QemuVersion } from '../tools/vmm/binaries.ts';
import { diskArgs, makeDisk } from '../tools/vmm/disk.ts';
import { fdMonitorArgs, migrateOverFd } from '../tools/vmm/fd-channel.ts';
import { imprint, mismatches, type Imprint } from '../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../tools/vmm/migration-file.ts';
import { expectDevice } from '../tools/vmm/pair.ts';
import { expectArrived, startPlainSource, startPlainVm } from '../tools/vmm/plain.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions } from '../tools/vmm/shim.ts';
import { waitForLooks } from '../tools/vmm/switchover.ts';
import { TestBed, type VmOptions } from '../tools/vmm/test-bed.ts';
import { isLive, type Cell, type MatrixDevice, type Outcome } from './cell.ts';

const DEVICES: Readonly<Record<Exclude<MatrixDevice, 'none'>, DeviceOptions>> = {
  qat: { driver: 'qat', size: '4M' },
  mtty: { driver: 'mtty', size: '8' },
  pds: { driver: 'pds', size: '4M' },
  'vendor-v1': { driver: 'vendor-v1', size: '4M' },
};

/** What is behind BAR 0 if that is less than the BAR: the registers of mtty's first port. */
const MEMORY: Readonly<Partial<Record<MatrixDevice, number>>> = { mtty: 8 };

/** A QEMU that gives up says why at once. */
const SAYING_MS = 5000;

interface Source {
  readonly source: Vm;
  readonly mark: Imprint;
  readonly destination?: Vm;
}

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
    const { refusal, stalls } = this.#cell;
    try {
      if (stalls !== undefined) return { verdict: 'stalls', words: await this.#stall(stalls) };
      return { verdict: 'works', sha256: await this.#migrate() };
    } catch (error) {
      if (refusal !== undefined && (await this.#isSaid(refusal, error as Error))) return this.#refused(refusal);
      return this.#failed(error as Error);
    }
  }

  #failed({ message }: Error): Outcome {
    const withoutDirectory = (text: string): string => text.replaceAll(this.#bed.directory, 'DIR');
    return { verdict: 'fails', words: withoutDirectory(message), story: withoutDirectory(this.#bed.describe()) };
  }

  /** The end that fails first may be the one that does not know why. */
  async #isSaid(refusal: string, { message }: Error): Promise<boolean> {
    const look = (): true | undefined => (`${message}\n${this.#bed.describe()}`.includes(refusal) ? true : undefined);
    return fulfilled(poll(look, SAYING_MS, refusal), SAYING_MS);
  }

  /** A live migration that is refused costs nothing: the guest runs on, with all that its device had. */
  async #refused(refusal: string): Promise<Outcome> {
    const source = this.#vms.find(({ name }) => name === 'source');
    try {
      if (source !== undefined && isLive(this.#cell)) await this.#expectRunning(source);
      return { verdict: 'refused', words: refusal };
    } catch (error) {
      return this.#failed(error as Error);
    }
  }

  async #expectRunning(vm: Vm): Promise<void> {
    await vm.waitForStatus('running');
    await vm.waitForTicks();
    if (this.#mark !== undefined) assert.deepEqual(await mismatches(vm, this.#mark), []);
  }

  /** QEMU has sent all of the memory, and still does not stop the VM. */
  async #stall(why: string): Promise<string> {
    const { source, destination } = await this.#startBoth('pds');
    await this.#setCapabilities(source);
    await startMigration(source, await listen(destination, this.#bed.path('migration')), { returnPath: true });
    assert.equal((await waitForLooks(source)).status, 'active');
    await this.#expectRunning(source);
    await cancelMigration(source);
    await this.#expectRunning(source);
    return why;
  }

  /** Returns the hash of the device's memory, the same at both ends. */
  async #migrate(): Promise<string | undefined> {
    if (this.#cell.device === 'none') return this.#migratePlain();
    const { device, way } = this.#cell;
    if (way === 'savevm') return this.#throughSnapshot(device);
    const {
      source,
      destination: waiting,
      mark,
    } = isLive(this.#cell) ? await this.#startBoth(device) : await this.#startSource(device);
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
  async #startSource(device: keyof typeof DEVICES, args: readonly string[] = []): Promise<Source> {
    const source = await this.#start('source', { args });
    await source.waitForFirmware();
    return { source, mark: (this.#mark = await imprint(source, VFIO_SLOT, MEMORY[device])) };
  }

  async #startBoth(device: keyof typeof DEVICES): Promise<Source & { destination: Vm }> {
    const [source, destination] = await Promise.all([this.#startSource(device), this.#startDestination()]);
    return { ...source, destination };
  }

  async #transfer(source: Vm, waiting?: Vm): Promise<Vm> {
    const { way, withoutReturnPath = false } = this.#cell;
    assert.ok(way !== 'savevm');
    await this.#setCapabilities(source);
    if (way === 'live' || way === 'fd') {
      const destination = waiting ?? (await this.#startDestination());
      const options = { returnPath: !withoutReturnPath };
      if (way === 'fd') await migrateOverFd(this.#bed, source, destination, options);
      else await migrateLive(source, destination, this.#bed.path('migration'), options);
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
    const { source, mark } = await this.#startSource(device, diskArgs(disk, 'qcow2'));
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
    const monitor = this.#cell.way === 'fd' ? fdMonitorArgs(this.#bed, name) : [];
    const args = [...traces.flatMap((event) => ['-trace', event]), ...monitor, ...(more.args ?? [])];
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
}

/** Each QEMU is shown what it speaks: the device's own protocol, or the other by the bridge. */
function presented(qemu: QemuVersion): readonly string[] {
  return ['--present', protocolOf(qemu)];
}
