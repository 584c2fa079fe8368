import assert from 'node:assert/strict';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { check, note } from '../guest/check.ts';
import { LinuxVm, type LinuxVmOptions } from '../guest/linux-vm.ts';
import { killSupervisor } from '../guest/serving.ts';

/**
 * Debian's Linux 6.12 in VMs of QEMU 7.2, 10.0 and the newest, whose driver writes an emulated device's BAR0 and rings for interrupts of
 * MSI-X while the VM is live-migrated: none is lost and none comes twice, and memory is what it was, the device's and the guest's. Before and
 * after, the device is reset, removed and found again, and the guest suspended. Supervisors that are killed lose none either, nor does a device
 * that is served on a socket.
 */

type End = Omit<LinuxVmOptions, 'incoming'>;

const end = (qemu: QemuVersion, device: string): End => ({
  qemu,
  device: `${device},size=64K`,
  present: qemu === '7.2' ? 'v1' : 'v2',
});

const onQ35 = { ...end('10.0', 'qat'), machine: 'pc-q35-10.0' };
const byIntx = (of: End): End => ({ ...of, intx: true });

const crossings: readonly (readonly [End, End, string?])[] = [
  [end('7.2', 'qat'), end('7.2', 'qat')],
  [end('10.0', 'qat'), end('10.0', 'qat')],
  [end('newest', 'qat'), end('newest', 'qat')],
  [end('7.2', 'qat'), end('10.0', 'qat')],
  [end('10.0', 'vendor-v1'), end('10.0', 'vendor-v1')],
  [onQ35, onQ35, 'on q35'],
  [byIntx(end('7.2', 'qat')), byIntx(end('10.0', 'qat')), 'by INTx'],
];

const CONTENT = '/tmp/content';

for (const [from, to, how] of crossings) {
  const title = [from.device.split(',')[0], how, `from QEMU ${from.qemu} to ${to.qemu}`].filter(Boolean).join(' ');
  await check(
    `${title}: no interrupt is lost, and memory is right`,
    async (bed) => {
      const source = await LinuxVm.start(bed, 'source', from);
      await source.waitForBoot();
      await source.trouble();
      await source.sh(`dd if=/dev/urandom of=${CONTENT} bs=1M count=32 2>/dev/null`);
      const hash = await source.sh(`sha256sum ${CONTENT}`);
      const destination = await LinuxVm.start(bed, 'destination', { ...to, incoming: true });
      const before = await source.rings();
      await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
      await destination.vm.waitForStatus('running');
      const after = await destination.rings();
      assert.ok(after.rung > before.rung);
      await destination.verify();
      assert.equal(await destination.sh(`sha256sum ${CONTENT}`), hash);
      await destination.trouble();
      note(`${title}: ${(await destination.rings()).rung} interrupts since the device was found again`);
      source.end();
      destination.end();
    },
    { ms: 600_000 },
  );
}

for (const socket of ['served', 'behind the proxy'] as const) {
  await check(`qat ${socket}, in the newest QEMU as a client of vfio-user: no interrupt is lost`, async (bed) => {
    const guest = await LinuxVm.start(bed, 'guest', { ...end('newest', 'qat'), socket });
    await guest.waitForBoot();
    await guest.trouble();
    guest.end();
  });
}

const KILLS = 30;

await check(
  `qat in QEMU 7.2: its supervisor is killed ${KILLS} times while the guest rings, and no interrupt is lost`,
  async (bed) => {
    const guest = await LinuxVm.start(bed, 'guest', end('7.2', 'qat'));
    await guest.waitForBoot();
    await guest.ring(true);
    for (let kill = 0; kill < KILLS; kill += 1) {
      await guest.rings(3, true);
      await killSupervisor('guest');
    }
    const { rung, extra } = await guest.rings(50, true);
    await guest.verify();
    note(`${rung} rings; ${extra} interrupts came twice`);
    guest.end();
  },
  { ms: 600_000 },
);
