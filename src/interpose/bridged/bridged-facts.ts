import { struct } from '../../abi/struct.ts';
import { KERNEL_STATE_SIZE } from '../../kernel/session-state.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Ledger } from '../memory/ledger.ts';

/** What there is to know of a bridged device, behind the state of the kernel's side in the driver's part of its arena. */
const bridged = struct('bridged', 64, {
  /** A device has been found and was given this place. */
  used: ['u32', 0],
  /** `VFIO_MIGRATION_*` of a v2 driver, 0 of a v1 driver. */
  flags: ['u32', 4],
  /** Of a v1 driver's own migration region: index, `VFIO_REGION_INFO_FLAG_*`, size, offset in the descriptor, data section. */
  region: ['u32', 8],
  region_flags: ['u32', 12],
  region_size: ['count', 16],
  region_offset: ['u64', 24],
  section_offset: ['count', 32],
  section_size: ['count', 40],
  /** Who was last seen to use it: a thread, and its descriptor. */
  tid: ['u32', 48],
  fd: ['s32', 52],
  /** Index of the migration region that is added; 0, where no such region can be, if none is. */
  added: ['u32', 56],
});
export type BridgedFacts = ReturnType<typeof bridged.view>;

const FACTS_AT = deviceArena.driver.offset + KERNEL_STATE_SIZE;
const NAME_AT = FACTS_AT + bridged.size;
const NAME_SIZE = 96;

/** The facts in a ledger's arena: reads and writes go straight there. */
export function bridgedFacts({ arena }: Ledger): BridgedFacts {
  return bridged.view(arena, FACTS_AT);
}

export function bridgedName({ arena }: Ledger): string {
  const bytes = arena.subarray(NAME_AT, NAME_AT + NAME_SIZE);
  return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
}

/** Forgets all that an arena has to say of an earlier device, and notes the name of another. */
export function startAnew({ arena, live }: Ledger, name: string): BridgedFacts {
  arena.fill(0);
  live.fill(0);
  arena.set(Buffer.from(name).subarray(0, NAME_SIZE - 1), NAME_AT);
  return bridged.view(arena, FACTS_AT);
}

/** The memory of the kernel's side. */
export function kernelState({ arena }: Ledger): Uint8Array {
  return arena.subarray(deviceArena.driver.offset, deviceArena.driver.offset + KERNEL_STATE_SIZE);
}
