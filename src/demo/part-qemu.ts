import { randomBytes } from 'node:crypto';
import { CRAWL, FULL_SPEED, listen, setParameters, startMigration, waitForMigration } from '../vmm/migration.ts';
import { VFIO_SLOT, type Qemu } from '../vmm/qemu-command.ts';
import { guestHash, sha256 } from './hash.ts';
import { startQemu } from './qemu-end.ts';
import { verified, type PartResult } from './result.ts';
import type { Stage } from './shimmed.ts';
import { mib } from './story.ts';

const DEVICE = 'qat,size=32M';
const LATE_BYTES = 64 * 1024;

/** Part 1 with QEMU: two unmodified VMs, live over a UNIX socket. */
export async function migrateWithQemu(stage: Stage, qemu: Qemu): Promise<PartResult> {
  const { story, workplace } = stage;
  const [source, destination] = await Promise.all([
    startQemu(stage, qemu, 'source', DEVICE),
    startQemu(stage, qemu, 'destination', DEVICE),
  ]);
  await source.vm.waitForFirmware(); // which gives BAR0 its address
  const { address, size } = await source.vm.bar(VFIO_SLOT, 0);
  const pattern = randomBytes(size);
  await source.vm.memory.write(address, pattern);
  story.step('source', `the guest has written ${mib(size)} of random bytes into BAR0 at 0x${address.toString(16)}`);

  const uri = await listen(destination.vm, workplace.path('migration'));
  await startMigration(source.vm, uri, { parameters: CRAWL, returnPath: true });
  story.step('migration', 'QEMU migrates live over a UNIX socket');
  await waitForMigration(source.vm, 'active');
  const late = randomBytes(LATE_BYTES);
  late.copy(pattern, size / 2);
  await source.vm.memory.write(address + size / 2, late);
  story.step('source', `the guest has written ${LATE_BYTES / 1024} KiB again while pre-copy runs`);
  await setParameters(source.vm, FULL_SPEED);
  const { downtime = 0 } = await waitForMigration(source.vm, 'completed');
  await waitForMigration(destination.vm, 'completed');
  story.step('migration', `completed, downtime ${downtime} ms`);
  const readSha256 = sha256(await destination.vm.memory.read(address, size));
  story.step('destination', `the guest has read ${mib(size)} from BAR0`);

  await Promise.all([source.vm.quit(), destination.vm.quit()]);
  const from = await source.vmm.report();
  const to = await destination.vmm.report();
  return verified({
    vmm: `QEMU ${qemu.version}`,
    vmmProtocol: 'v1',
    device: DEVICE,
    deviceProtocol: from.protocol,
    guestMemoryBytes: size,
    writtenSha256: sha256(pattern),
    readSha256,
    transferSeconds: Math.max(downtime, 1) / 1000,
    downtimeSeconds: downtime / 1000,
    source: { states: from.states, bytes: from.bytesOut, buffers: from.buffersOut, sha256: guestHash(from) },
    destination: { states: to.states, bytes: to.bytesIn, buffers: to.buffersIn, sha256: guestHash(to) },
  });
}
