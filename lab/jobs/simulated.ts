import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import { becomeUser, USER } from '../guest/user.ts';
import { underShim } from '../guest/vm.ts';

/** The shim runs on this kernel as an ordinary user: with a simulated device, so that only the kernel is new. */

becomeUser();

function startVm(bed: TestBed, name: string, qemu: QemuVersion, options: VmOptions = {}): Promise<Vm> {
  const sysfs = bed.path(`${name}.sysfs`);
  mkdirSync(sysfs);
  const prefix = underShim(name, '--device', 'qat,size=1M', '--sysfs', sysfs);
  return bed.startVm(name, { ...options, qemu, prefix, vfio: [`${sysfs}/0000:90:00.0`] });
}

await check('an ordinary user migrates a simulated device from QEMU 7.2 to 10.0', async (bed) => {
  assert.equal(process.getuid?.(), USER);
  const source = await startVm(bed, 'source', '7.2');
  const destination = await startVm(bed, 'destination', '10.0', { incoming: true });
  await source.waitForFirmware();
  const mark = await imprint(source);
  await migrateLive(source, destination, bed.path('migration'), { returnPath: true });
  await destination.waitForStatus('running');
  assert.deepEqual(await mismatches(destination, mark), []);
  await destination.waitForTicks();
});
