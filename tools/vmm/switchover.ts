import { poll } from '../../src/vmm/deadline.ts';
import { queryMigration, type MigrationInfo, type MigrationParameters } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/* When QEMU stops the VM that it migrates: it looks again and again whether the rest may be sent in `downtime-limit`. */

/** A downtime in which no machine moves a device: QEMU may stop the VM only if it takes the rest for far less. */
export const HARDLY = { 'max-bandwidth': 2 ** 30, 'downtime-limit': 1 } as const satisfies MigrationParameters;

/** The longest downtime that QEMU takes: MAX_MIGRATE_DOWNTIME, 2,000 s (migration/migration.c of QEMU 7.2). */
export const LONGEST_DOWNTIME = 2_000_000;

/** The largest that QEMU takes: the VM is stopped as soon as QEMU looks whether it may be. */
export const AT_ONCE = {
  'max-bandwidth': 2 ** 50,
  'downtime-limit': LONGEST_DOWNTIME,
} as const satisfies MigrationParameters;

/** If QEMU has looked so often and not stopped the VM, it is taken not to stop it. */
export const LOOKS = 50;

/** How often QEMU has looked: it looks for dirty memory anew each time. */
export function looksOf({ ram }: MigrationInfo): number {
  return ram?.['dirty-sync-count'] ?? 0;
}

/**
 * Waits until QEMU has looked LOOKS times, again `since` it was asked last, and has nothing of the guest's memory left to send,
 * which an idle guest dirties a little now and then; or until it has stopped the VM and completed.
 */
export async function waitForLooks(vm: Vm, since: MigrationInfo = {}): Promise<MigrationInfo> {
  const count = looksOf(since) + LOOKS;
  let last: MigrationInfo = {};
  const ask = async (): Promise<MigrationInfo | undefined> => {
    last = await queryMigration(vm);
    const waits = looksOf(last) >= count && last.ram?.remaining === 0;
    return waits || last.status === 'completed' ? last : undefined;
  };
  return poll(
    ask,
    40_000,
    () => `QEMU to look ${count} times whether it may stop VM ${vm.name}: ${JSON.stringify(last)}`,
  );
}

/** The mask of the first i8259, whose input 0 is the timer. */
const PIC_MASK = 0x21;

/**
 * Gives an idle guest no timer interrupts any more, so that it writes nothing; what is returned gives them again, where the guest is by then.
 * While QEMU asks for dirty memory, TCG now and then loses what a guest writes: notdirty_write() of accel/tcg/cputlb.c finds the page marked,
 * the migration thread takes the mark, and tlb_set_dirty() has later writes pass unmarked. That is no matter to a guest like this one, unless
 * it is stopped in its interrupt's handler: then the frame is not at the destination. With a QEMU that asks as often as it can, that was one
 * migration in 150, four at a time on 2 CPUs.
 */
export async function withoutTimer(source: Vm): Promise<(vm: Vm) => Promise<void>> {
  const mask = await source.memory.inb(PIC_MASK);
  await source.memory.outb(PIC_MASK, mask | 1);
  return async (vm) => {
    await vm.waitForStatus('running');
    await vm.memory.outb(PIC_MASK, mask);
  };
}
