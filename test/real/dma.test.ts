import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readRecording } from '../../src/recording/reader.ts';
import { killHard } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import {
  cancelMigration,
  FULL_SPEED,
  listen,
  queryMigration,
  setParameters,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import {
  differingPages,
  guestRam,
  makeBusMaster,
  writtenPages,
  type GuestRam,
  type WrittenPage,
} from '../../tools/vmm/guest-ram.ts';
import { startPair } from '../../tools/vmm/pair.ts';
import { serving, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
/** What lies where when a device first writes is for firmware to say, which may not be done yet. */
const DMA = { dma: 2000, dmaAt: '32M+16M' };
/** Less than two devices write to in a second: in pre-copy until it is given more. */
const TOO_SLOW = { 'max-bandwidth': 2 ** 22, 'downtime-limit': 1 };

type Qemu = '5.2' | '7.2' | '10.0';

/** QEMU 5.2 has no newer machine than its own. */
const options = (qemu: Qemu): ShimOptions => ({
  qemu,
  run: qemu === '10.0' ? ['--present', 'v2', '--offer-p2p'] : [],
  ...(qemu === '5.2' && { machine: 'pc' }),
});

describeWithQemus(['5.2', '7.2', '10.0'], 'devices that do DMA', () => {
  const bed = useTestBed();

  /** Two VMs whose devices write to memory, the destination's once it runs. */
  async function start(qemu: Qemu, devices: readonly DeviceOptions[]): Promise<{ source: Vm; destination: Vm }> {
    const { run = [], ...others } = options(qemu);
    const traced = { ...others, run: [...run, '--record', bed().path('recording')] };
    const pair = await startPair(bed(), devices, traced, { ...options(qemu), paused: true });
    for (const n of devices.keys()) await makeBusMaster(pair.source, VFIO_SLOT + n);
    return pair;
  }

  /** Whether the source has asked its container for dirty pages: the number is that of a device's features too. */
  function asksContainer(): boolean {
    const lines = [...readRecording([readFileSync(bed().path('recording'))])];
    const made = (request: string): string[] =>
      lines.flatMap((line) =>
        line.kind === 'access' && line.call.protocol === 'vfio' && line.call.request === request
          ? [line.node ?? 'a device']
          : [],
      );
    expect(new Set(made('VFIO_IOMMU_MAP_DMA'))).toEqual(new Set(['/dev/vfio/vfio']));
    return made('VFIO_IOMMU_DIRTY_PAGES').length > 0;
  }

  async function syncs(vm: Vm, count: number): Promise<void> {
    const enough = async (): Promise<true | undefined> =>
      ((await queryMigration(vm)).ram?.['dirty-sync-count'] ?? 0) >= count ? true : undefined;
    await poll(enough, 30_000, () => `VM ${vm.name} to ask ${count} times for dirty pages${vm.child.lastWords}`);
  }

  /** The memory of both ends, which are stopped, and what the source's devices have written. */
  async function finish(
    source: Vm,
    destination: Vm,
  ): Promise<{ ours: GuestRam; theirs: GuestRam; written: WrittenPage[] }> {
    await setParameters(source, FULL_SPEED);
    await waitForMigration(source, 'completed', 60_000);
    await waitForMigration(destination, 'completed');
    await destination.waitForStatus('paused');
    const [ours, theirs] = [await guestRam(bed(), source), await guestRam(bed(), destination)];
    return { ours, theirs, written: writtenPages(ours) };
  }

  async function expectSame(source: Vm, destination: Vm, devices: readonly DeviceOptions[]): Promise<void> {
    const { ours, theirs, written } = await finish(source, destination);
    for (const [at, bytes] of ours) expect(theirs.get(at)).toBeBytes(bytes);
    for (const device of devices.keys())
      expect(written.filter((page) => page.device === device).length, `pages of device ${device}`).toBeGreaterThan(100);
    await expectGoesOn(destination, theirs);
  }

  /** The destination's devices write as well, once it runs. */
  async function expectGoesOn(destination: Vm, before: GuestRam): Promise<void> {
    await destination.cont();
    const [page] = writtenPages(before);
    const at = page?.iova ?? 0;
    const old = await destination.memory.read(at, 32);
    await poll(
      async () => ((await destination.memory.read(at, 32)).equals(old) ? undefined : true),
      30_000,
      () => `a device of VM ${destination.name} to write to 0x${at.toString(16)}${destination.child.lastWords}`,
    );
  }

  async function killSupervisor(vm: Vm): Promise<void> {
    const [first] = serving(bed(), 'supervisor-main', vm);
    killHard(first ?? Number.NaN);
    const another = (): number | undefined => serving(bed(), 'supervisor-main', vm).find((pid) => pid !== first);
    await poll(another, 10_000, () => `another supervisor of VM ${vm.name}${vm.child.lastWords}`);
  }

  const qats: readonly DeviceOptions[] = [
    { size: '1M', seed: 1, ...DMA },
    { size: '1M', seed: 2, ...DMA },
  ];
  const mixed: readonly DeviceOptions[] = [
    { size: '1M', seed: 1, ...DMA },
    { driver: 'vendor-v1', size: '1M', seed: 2, ...DMA },
  ];

  const told = [
    { title: 'QEMU 5.2, whom the container tells', qemu: '5.2', devices: qats },
    { title: 'QEMU 7.2, whom the container tells', qemu: '7.2', devices: qats },
    { title: 'QEMU 10.0, whom the devices tell', qemu: '10.0', devices: qats },
    { title: 'QEMU 10.0, whom the container tells of a v1 driver too', qemu: '10.0', devices: mixed },
  ] as const;

  /** Begins a migration that stays in pre-copy, until dirty pages have been asked for so often. */
  async function begin(source: Vm, destination: Vm, count: number): Promise<void> {
    const uri = await listen(destination, bed().path(`${destination.name}.migration`));
    await startMigration(source, uri, { parameters: TOO_SLOW, returnPath: true });
    await syncs(source, count);
  }

  it.each(inShort(told, (_, n) => n === 1 || n === 3))(
    'migrate with all that they wrote: $title',
    { timeout: TIMEOUT },
    async ({ title, qemu, devices }) => {
      const { source, destination } = await start(qemu, devices);
      await begin(source, destination, 4);
      await expectSame(source, destination, devices);
      expect(asksContainer()).toBe(title.includes('container'));
    },
  );

  it.each(inShort(told.slice(1), (_, n) => n === 0))(
    'lose pages if nobody is told: $title',
    { timeout: TIMEOUT },
    async ({ qemu, devices }) => {
      const untold = devices.map((device): DeviceOptions => ({ ...device, dmaLog: 'off' }));
      const { source, destination } = await start(qemu, untold);
      await begin(source, destination, 2);
      const { ours, theirs, written } = await finish(source, destination);
      const lost = differingPages(ours, theirs);
      expect(lost.length).toBeGreaterThan(0);
      expect(written.map(({ iova }) => iova)).toEqual(expect.arrayContaining(lost));
    },
  );

  describe.each(inShort(['7.2', '10.0'] as const, (qemu) => qemu === '10.0'))('under QEMU %s', (qemu) => {
    it('migrate after a migration that was cancelled', { timeout: TIMEOUT }, async () => {
      const { source, destination } = await start(qemu, qats);
      await begin(source, destination, 2);
      await cancelMigration(source);
      await destination.waitForExit();
      const incoming = { ...options(qemu), incoming: true, paused: true };
      const second = await startShimmedVm(bed(), 'second', qats, incoming);
      await begin(source, second, 2);
      await expectSame(source, second, qats);
    });

    it('migrate though the supervisor is killed', { timeout: TIMEOUT }, async () => {
      const { source, destination } = await start(qemu, qats);
      await begin(source, destination, 2);
      for (const count of [3, 4, 5]) {
        await killSupervisor(source);
        await syncs(source, count);
      }
      await expectSame(source, destination, qats);
    });
  });
});
