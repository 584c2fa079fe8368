import { FINAL } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/* What the events of a VM's monitor tell. */

/** The statuses that MIGRATION events announced, in order. */
export function migrationHistory(vm: Vm): string[] {
  return vm.qmp.events.filter((event) => event.event === 'MIGRATION').map((event) => String(event.data['status']));
}

/** Waits until QEMU announces the end of a migration, whichever. Nothing is asked meanwhile, which would take QEMU's time. */
export async function waitForMigrationEnd(vm: Vm, ms: number): Promise<void> {
  await vm.qmp.waitForEvent('MIGRATION', { ms, where: ({ status }) => FINAL.has(String(status)) });
}

/**
 * The states that a VFIO device of QEMU 10 went through, by VFIO_MIGRATION events (qapi/vfio.json): `pre-copy`, `stop-copy`,
 * `stop`, `resuming`, `running`, ...
 */
export function vfioStates(vm: Vm, index = 0): string[] {
  const path = `/machine/peripheral/vfio${index}`;
  return vm.qmp.events
    .filter(({ event, data }) => event === 'VFIO_MIGRATION' && data['qom-path'] === path)
    .map(({ data }) => String(data['device-state']));
}
