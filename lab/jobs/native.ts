import assert from 'node:assert/strict';
import { listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { vfioStates } from '../../tools/vmm/events.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { hashOfMtty, Uart } from '../guest/uart.ts';
import { hashOfMemory, startMttyVm } from '../guest/vm.ts';

/** The yardstick: QEMU 10.0 and mtty speak v2 to each other, with nothing between them. */

const qemu = '10.0';

/** Two VMs with an mtty of two ports each; the source's has a pattern in its registers. */
async function startPair(bed: TestBed, seed: number): Promise<{ source: Vm; startDestination: () => Promise<Vm> }> {
  const [from, to] = [Mtty.create('mtty-2'), Mtty.create('mtty-2')];
  const source = await startMttyVm(bed, 'source', [from], { qemu });
  await source.waitForFirmware();
  await new Uart(source, { port: 0 }).imprint(seed);
  await new Uart(source, { port: 1 }).imprint(~seed);
  assert.equal(await new Uart(source).scratch(), seed);
  return {
    source,
    startDestination: () => startMttyVm(bed, 'destination', [to], { qemu, incoming: true, paused: true }),
  };
}

/**
 * The destination has all of the memory and the registers, and goes on. It was started paused, so that its memory can be compared;
 * QEMU leaves its device RESUMING, and mtty takes over the registers when that ends.
 */
async function assertArrived(bed: TestBed, source: Vm, destination: Vm, seed: number): Promise<void> {
  assert.equal(await hashOfMemory(destination, bed), await hashOfMemory(source, bed));
  assert.deepEqual(vfioStates(destination), ['resuming']);
  await destination.cont();
  await destination.waitForStatus('running');
  assert.deepEqual(vfioStates(destination), ['resuming', 'running-p2p', 'running']);
  assert.equal(await new Uart(destination, { port: 0 }).scratch(), seed);
  assert.equal(await new Uart(destination, { port: 1 }).scratch(), ~seed & 0xff);
  assert.equal(await hashOfMtty(destination, 2), await hashOfMtty(source, 2));
  await destination.waitForTicks();
}

await check('QEMU 10.0 migrates an mtty live', async (bed) => {
  const { source, startDestination } = await startPair(bed, 0x5a);
  const destination = await startDestination();
  await migrateLive(source, destination, bed.path('migration'), { returnPath: true });
  assert.deepEqual(vfioStates(source), ['pre-copy', 'pre-copy-p2p', 'stop-copy', 'stop']);
  await assertArrived(bed, source, destination, 0x5a);
});

await check('QEMU 10.0 saves an mtty into a file and loads it', async (bed) => {
  const { source, startDestination } = await startPair(bed, 0x33);
  await migrateToFile(source, bed.path('state'));
  const destination = await startDestination();
  await loadFromFile(destination, bed.path('state'));
  await assertArrived(bed, source, destination, 0x33);
});

await check(
  'QEMU 10.0 fails to migrate an mtty whose log of DMA it uses: the kernel does not report it',
  async (bed) => {
    const vfioProperties = ['x-device-dirty-page-tracking=on']; // the default, and the last one counts
    const [source, destination] = await Promise.all([
      startMttyVm(bed, 'source', [Mtty.create('mtty-1')], { qemu, vfioProperties }),
      startMttyVm(bed, 'destination', [Mtty.create('mtty-1')], { qemu, vfioProperties, incoming: true }),
    ]);
    await source.waitForFirmware();
    await startMigration(source, await listen(destination, bed.path('migration')), { returnPath: true });
    const { 'error-desc': why } = await waitForMigration(source, 'failed');
    assert.equal(why, 'ram_save_setup failed: Operation not supported');
    assert.equal(await source.status(), 'running');
  },
);
