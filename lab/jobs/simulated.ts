import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import type { QemuVersion } from '../../test/real/binaries.ts';
import type { VmOptions } from '../../test/real/qemu.ts';
import { imprint, mismatches } from '../../test/real/imprint.ts';
import { migrateLive } from '../../test/real/migration.ts';
import type { Vm } from '../../test/real/qemu.ts';
import type { TestBed } from '../../test/real/test-bed.ts';
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
