import { describe, expect, it } from 'vitest';
import { DMA_MAGIC, DMA_PAGE, dma_record } from '../../src/sim/dma.ts';
import { poll } from '../../src/vmm/deadline.ts';
import {
  cancelMigration,
  CRAWL,
  listen,
  migrateLive,
  startMigration,
  waitForMigration,
} from '../../src/vmm/migration.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { protocolOf } from '../../tools/vmm/binaries.ts';
import { makeBusMaster } from '../../tools/vmm/guest-ram.ts';
import { startPair, type Pair } from '../../tools/vmm/pair.ts';
import { quitAndReports, startShimmedVm, type DeviceOptions, type ShimOptions } from '../../tools/vmm/shim.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
/** Where the guest's devices write: a page each, which firmware leaves alone. */
const AT = 32 * 1024 * 1024;
/** Some pages are due after each call that takes as long as a switch to the supervisor and back. */
const RATE = 100_000;

const pageOf = (device: number): number => AT + device * DMA_PAGE;

function devicesOf(...drivers: readonly string[]): DeviceOptions[] {
  return drivers.map((driver, n) => ({ driver, size: '1M', dma: RATE, dmaAt: `${pageOf(n)}+4K`, dmaPeers: true }));
}

/** The devices are bus masters, and each has written since this was asked. */
async function untilWritten(vm: Vm, devices: readonly DeviceOptions[]): Promise<void> {
  for (const n of devices.keys()) {
    const counter = async (): Promise<number> => {
      const { magic, counter: count } = dma_record.decode(await vm.memory.read(pageOf(n), dma_record.size));
      return magic === DMA_MAGIC ? count : -1;
    };
    const before = await counter();
    await poll(
      async () => ((await counter()) === before ? undefined : true),
      30_000,
      () => `device ${n} of VM ${vm.name} to write${vm.child.lastWords}`,
    );
  }
}

async function pauseAndContinue(vm: Vm, devices: readonly DeviceOptions[], times = 3): Promise<void> {
  for (let n = 0; n < times; n += 1) {
    await vm.stop();
    await vm.cont();
    await untilWritten(vm, devices);
  }
}

describe.each(inShort(['5.2', '7.2', '10.0', 'newest'] as const, (_, n) => n === 1))(
  'devices that write to each other',
  (qemu) => {
    describeWithQemus([qemu], `under QEMU ${qemu}`, () => {
      const bed = useTestBed();
      const isV2 = protocolOf(qemu) === 'v2';

      /** Pauses a VM, cancels a migration, migrates, and pauses the destination. */
      async function live(devices: readonly DeviceOptions[], p2p: 'auto' | 'off'): Promise<Pair> {
        const run = [...(isV2 ? ['--present', 'v2', '--offer-p2p'] : ['--present', 'v1']), '--p2p', p2p];
        const options: ShimOptions = { qemu, run, ...(qemu === '5.2' && { machine: 'pc' }) };
        const { source, destination: first } = await startPair(bed(), devices, options);
        for (const n of devices.keys()) await makeBusMaster(source, VFIO_SLOT + n);
        await untilWritten(source, devices);
        await pauseAndContinue(source, devices);

        const uri = await listen(first, bed().path('cancelled.migration'));
        await startMigration(source, uri, { parameters: CRAWL, returnPath: true });
        await waitForMigration(source, 'active');
        await cancelMigration(source);
        await first.waitForExit();
        await untilWritten(source, devices);

        const second = await startShimmedVm(bed(), 'second', devices, { ...options, incoming: true });
        await migrateLive(source, second, bed().path('migration'), { returnPath: true });
        await second.waitForStatus('running');
        await pauseAndContinue(second, devices);
        return { source, destination: second };
      }

      it.each(isV2 ? ['qat', 'vendor-v1'] : ['qat'])(
        'never find one stopped: %s',
        { timeout: TIMEOUT },
        async (driver) => {
          const { source, destination } = await live(devicesOf(driver, driver), 'auto');
          for (const vm of [source, destination]) {
            const reports = await quitAndReports(vm);
            expect(reports.map(({ violations }) => violations)).toEqual([0, 0]);
            for (const { peerWrites } of reports) expect(peerWrites).toBeGreaterThan(100);
          }
        },
      );

      // QEMU 10 itself takes v2 drivers to their P2P states
      it('find one stopped if --p2p off has them stop one by one', { timeout: TIMEOUT }, async () => {
        const driver = isV2 ? 'vendor-v1' : 'qat';
        const { source, destination } = await live(devicesOf(driver, driver), 'off');
        for (const [vm, state] of [
          [source, 'STOP'],
          [destination, isV2 ? 'STOP' : 'RESUMING'],
        ] as const) {
          const [first, last] = await quitAndReports(vm);
          // QEMU stops the last one first, and starts it last
          expect(first?.violations).toBeGreaterThan(0);
          expect(last?.violations).toBe(0);
          const warnings = vm.child.stderr.match(/0000:9.:00\.0: the device writes to .*/g);
          expect(warnings).toEqual([`0000:90:00.0: the device writes to 0000:91:00.0, which is in ${state}`]);
        }
      });
    });
  },
);
