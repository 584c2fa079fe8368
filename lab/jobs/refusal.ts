import assert from 'node:assert/strict';
import { queryMigration, startMigration } from '../../src/vmm/migration.ts';
import { QmpError } from '../../src/vmm/qmp.ts';
import { check } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { startMttyVm } from '../guest/vm.ts';

/** Why there is a shim: QEMU 7.2 speaks v1 only, and mtty v2 only. */

await check('QEMU 7.2 without the shim refuses to migrate an mtty', async (bed) => {
  const vm = await startMttyVm(bed, 'vm', [Mtty.create()], { qemu: '7.2' });
  await vm.waitForFirmware();
  await assert.rejects(startMigration(vm, `exec:cat > ${bed.path('state')}`), (error) => {
    assert.ok(error instanceof QmpError);
    assert.match(error.message, /VFIO device doesn't support migration/);
    return true;
  });
  assert.equal((await queryMigration(vm)).status, undefined);
  assert.equal(await vm.status(), 'running');
});
