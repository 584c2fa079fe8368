import { QEMUS } from '../cells.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import type { DeviceOptions } from '../../tools/vmm/shim.ts';

/** What happens to a migration. */
export type What = 'completes' | 'is cancelled' | 'cannot be saved' | 'cannot be loaded';

/** A VM that is migrated to another of the same QEMU, whose accesses are judged at both ends. */
export interface Case {
  readonly qemu: QemuVersion;
  readonly driver: 'qat' | 'vendor-v1';
  readonly what: What;
}

/** The second of these fails at the source, and at the destination: the first is a setup, or a header. */
const FAULTS: Readonly<Partial<Record<What, { readonly at: End; readonly fault: string }>>> = {
  'cannot be saved': { at: 'source', fault: 'read@2:EIO' },
  'cannot be loaded': { at: 'destination', fault: 'write@2:EIO' },
};

export type End = 'source' | 'destination';

export function deviceOf({ driver, what }: Case, end: End): DeviceOptions {
  const failing = FAULTS[what];
  return {
    driver,
    size: '4M',
    ...(end === 'source' && { seed: 7 }),
    ...(failing?.at === end && { fault: failing.fault }),
  };
}

const WHATS: readonly What[] = ['completes', 'is cancelled', 'cannot be saved', 'cannot be loaded'];

/** A device that fails, fails the same VMM in the same way: that is tried with one. */
const isTried = ({ driver, what }: Omit<Case, 'qemu'>): boolean => driver === 'qat' || what === 'completes';

export const cases: readonly Case[] = QEMUS.flatMap((qemu) =>
  (['qat', 'vendor-v1'] as const).flatMap((driver) => WHATS.map((what) => ({ qemu, driver, what })).filter(isTried)),
);

export function titleOf({ qemu, driver, what }: Case): string {
  return `${qemu}, ${driver}: ${what}`;
}
