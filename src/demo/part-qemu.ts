import { randomBytes } from 'node:crypto';
import { guestHash, sha256 } from './hash.ts';
import type { Qemu } from './qemu.ts';
import { QemuVm } from './qemu-vm.ts';
import { verified, type PartResult } from './result.ts';
import type { Stage } from './shimmed.ts';
import { mib } from './story.ts';

const DEVICE = 'qat,size=32M';
const LATE_BYTES = 64 * 1024;

/** So slow that pre-copy lasts until the limit is lifted. */
const SLOW = { 'max-bandwidth': 4096, 'downtime-limit': 1 };
const FAST = { 'max-bandwidth': 2 ** 40, 'downtime-limit': 10_000 };

/** Part 1 with QEMU: two unmodified VMs, live over a UNIX socket. */
export async function migrateWithQemu(stage: Stage, qemu: Qemu): Promise<PartResult> {
  const { story } = stage;
  const [source, destination] = await Promise.all([
    QemuVm.start(stage, qemu, 'source', DEVICE),
    QemuVm.start(stage, qemu, 'destination', DEVICE),
  ]);
  const { address, size } = await source.bar();
  const pattern = randomBytes(size);
  await source.write(address, pattern);
  story.step('source', `the guest has written ${mib(size)} of random bytes into BAR0 at 0x${address.toString(16)}`);

  await setUp(stage, source, destination);
  await source.migration('active');
  const late = randomBytes(LATE_BYTES);
  late.copy(pattern, size / 2);
  await source.write(address + size / 2, late);
  story.step('source', `the guest has written ${LATE_BYTES / 1024} KiB again while pre-copy runs`);
  await source.execute('migrate-set-parameters', FAST);
  const { downtime = 0 } = await source.migration('completed');
  await destination.migration('completed');
  story.step('migration', `completed, downtime ${downtime} ms`);
  const readSha256 = sha256(await destination.read(address, size));
  story.step('destination', `the guest has read ${mib(size)} from BAR0`);

  await Promise.all([source.quit(), destination.quit()]);
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

/** Connects the two and begins. With a return path the source keeps its VM until the destination has it. */
async function setUp({ workplace, story }: Stage, source: QemuVm, destination: QemuVm): Promise<void> {
  const uri = `unix:${workplace.path('migration')}`;
  await destination.execute('migrate-incoming', { uri });
  const capabilities = [{ capability: 'return-path', state: true }];
  await source.execute('migrate-set-capabilities', { capabilities });
  await source.execute('migrate-set-parameters', SLOW);
  await source.execute('migrate', { uri });
  story.step('migration', 'QEMU migrates live over a UNIX socket');
}
