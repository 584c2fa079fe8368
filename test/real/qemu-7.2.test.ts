import { expect, it } from 'vitest';
import {
  cancelMigration,
  CRAWL,
  listen,
  migrateLive,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches, type Imprint } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { quitAndReport, startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import type { VmOptions } from '../../tools/vmm/test-bed.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemu } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(60_000);

/** What libvirt starts QEMU with. Without `spawn` there is no `exec:`, so only live migration works. */
const LIBVIRT_SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

describeWithQemu('run under QEMU 7.2', () => {
  const bed = useTestBed();
  const start = (name: string, device: DeviceOptions = {}, options: VmOptions = {}): Promise<Vm> =>
    startShimmedVm(bed(), name, [device], options);
  const awaitMigration = (name: string, device: DeviceOptions = {}, options: VmOptions = {}): Promise<Vm> =>
    start(name, device, { ...options, incoming: true });

  /** A booted VM whose device holds bytes that no other run has. */
  async function startSource(
    device: DeviceOptions = {},
    options: VmOptions = {},
  ): Promise<{ source: Vm; mark: Imprint }> {
    const source = await start('source', device, options);
    await source.waitForFirmware();
    return { source, mark: await imprint(source) };
  }

  /** Waits until the VM runs; what its device lost of the imprint. */
  async function outcome(vm: Vm, mark: Imprint): Promise<unknown> {
    await vm.waitForStatus('running');
    await vm.waitForTicks();
    return { wrongOffsets: await mismatches(vm, mark) };
  }

  /** Ends both VMs; the hashes cover all guest-visible memory of their devices. */
  async function arrival(source: Vm, destination: Vm, mark: Imprint): Promise<unknown> {
    const running = await outcome(destination, mark);
    const to = await quitAndReport(destination);
    const from = await quitAndReport(source);
    // a source that was tried before has sent more than this destination got
    const moved = to.bytesIn > 0 && to.bytesIn <= from.bytesOut;
    return { running, sameHash: to.sha256 === from.sha256, moved };
  }

  const INTACT = { wrongOffsets: [] };
  const ARRIVED = { running: INTACT, sameHash: true, moved: true };

  async function throughFile(device: DeviceOptions, options: VmOptions = {}): Promise<unknown> {
    const { source, mark } = await startSource(device, options);
    await migrateToFile(source, bed().path('state'));
    const destination = await awaitMigration('destination', device, options);
    await loadFromFile(destination, bed().path('state'));
    return arrival(source, destination, mark);
  }

  async function live(device: DeviceOptions, options: VmOptions = {}): Promise<unknown> {
    const { source, mark } = await startSource(device, options);
    const destination = await awaitMigration('destination', device, options);
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    return arrival(source, destination, mark);
  }

  it('saves a running VM into a file and loads it', { timeout: TIMEOUT }, async () => {
    expect(await throughFile({})).toEqual(ARRIVED);
  });

  it('migrates a running VM', { timeout: TIMEOUT }, async () => {
    expect(await live({})).toEqual(ARRIVED);
  });

  it('saves and loads in a sandbox', { timeout: TIMEOUT }, async () => {
    expect(await throughFile({}, { sandbox: 'on' })).toEqual(ARRIVED);
  });

  it.each(inShort(['on', LIBVIRT_SANDBOX], (_, n) => n === 1))(
    'migrates in the sandbox %s',
    { timeout: TIMEOUT },
    async (sandbox) => {
      expect(await live({}, { sandbox })).toEqual(ARRIVED);
    },
  );

  it('migrates 256 MiB of state after pre-copy', { timeout: TIMEOUT }, async () => {
    const size = 256 * 1024 * 1024;
    const { source, mark } = await startSource({ size: String(size) });
    const destination = await awaitMigration('destination', { size: String(size) });
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    const running = await outcome(destination, mark);
    const [to, from] = [await quitAndReport(destination), await quitAndReport(source)];
    expect(running).toEqual(INTACT);
    expect(to.sha256).toBe(from.sha256);
    expect(from.states).toEqual(['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP']);
    expect(to.states).toEqual(['RUNNING', 'RESUMING', 'RUNNING', 'STOP']); // the last as the VM quits
    expect(from.bytesOut).toBeGreaterThan(size);
    expect(to.bytesIn).toBe(from.bytesOut);
  });

  it.each(inShort(['mtty', 'pds', 'hisi', 'vendor-v1', 'draft-2018', 'draft-2019'], (_, n) => n % 2 === 1))(
    'migrates a running VM with %s',
    { timeout: TIMEOUT },
    async (driver) => {
      const size = driver === 'mtty' ? '8' : '1M';
      expect(await live({ driver, size })).toMatchObject({ sameHash: true, moved: true });
    },
  );

  it('saves a paused VM and loads it paused', { timeout: TIMEOUT }, async () => {
    const { source, mark } = await startSource();
    await source.stop();
    await migrateToFile(source, bed().path('state'));
    const destination = await awaitMigration('destination');
    await loadFromFile(destination, bed().path('state'));
    expect(await destination.status()).toBe('paused');
    await destination.cont();
    expect(await arrival(source, destination, mark)).toEqual(ARRIVED);
  });

  it('cancels in pre-copy and migrates again', { timeout: TIMEOUT }, async () => {
    const { source, mark } = await startSource();
    const first = await awaitMigration('first');
    await startMigration(source, await listen(first, bed().path('first.migration')), { parameters: CRAWL });
    await waitForMigration(source, 'active');
    await cancelMigration(source);
    expect(await outcome(source, mark)).toEqual(INTACT);
    expect((await first.waitForExit()).code).toBe(1);
    expect(await retry(source, mark)).toEqual(ARRIVED);
  });

  it('migrates on from the destination', { timeout: TIMEOUT }, async () => {
    const { source, mark } = await startSource();
    const second = await awaitMigration('second');
    await migrateLive(source, second, bed().path('second.migration'), { returnPath: true });
    expect(await outcome(second, mark)).toEqual(INTACT);
    await source.quit();
    // What the guest writes after the first migration is in the second.
    expect(await retry(second, await imprint(second))).toEqual(ARRIVED);
  });

  /** A migration that must fail on both sides, and leave the source running with what it had. */
  async function failing(
    sourceDevice: DeviceOptions,
    destinationDevice: DeviceOptions,
    returnPath = true,
  ): Promise<unknown> {
    const { source, mark } = await startSource(sourceDevice);
    const destination = await awaitMigration('destination', destinationDevice);
    await startMigration(source, await listen(destination, bed().path('migration')), { returnPath });
    await waitForMigration(source, 'failed');
    expect(await destination.waitForExit()).toEqual({ code: 1, signal: null });
    expect(destination.child.stderr).toMatch(/load of migration failed/);
    expect(await outcome(source, mark)).toEqual(INTACT);
    return retry(source, mark, { ...destinationDevice, ...sourceDevice, fault: undefined });
  }

  it('refuses an incompatible device, and the source goes on', { timeout: TIMEOUT }, async () => {
    expect(await failing({ compat: 1 }, { compat: 2 })).toEqual(ARRIVED);
  });

  it('fails where the source device fails, and the source goes on', { timeout: TIMEOUT }, async () => {
    // Without a return path: QEMU 7.2's source keeps the connection open for it after a late failure of its own.
    expect(await failing({ fault: 'read@3:EIO' }, {}, false)).toEqual(ARRIVED);
  });

  it('fails where the destination device fails, and the source goes on', { timeout: TIMEOUT }, async () => {
    expect(await failing({}, { fault: 'write@2:EIO' })).toEqual(ARRIVED);
  });

  /** Migrates to one more VM. */
  async function retry(source: Vm, mark: Imprint, device: DeviceOptions = {}): Promise<unknown> {
    const destination = await awaitMigration('retry', device);
    await migrateLive(source, destination, bed().path('retry.migration'), { returnPath: true });
    return arrival(source, destination, mark);
  }
});
