import { randomBytes, randomInt } from 'node:crypto';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/** Bytes that a test put into a device's BAR 0, by offset. */
export type Imprint = ReadonlyMap<number, Buffer>;

const PAGE = 4096;

/**
 * Writes random bytes into BAR 0 as the guest would: the first page, the last, and some between. `bytes`: there are no more than
 * these behind the BAR.
 */
export async function imprint(vm: Vm, slot = VFIO_SLOT, bytes?: number): Promise<Imprint> {
  const { address, size: whole } = await vm.bar(slot, 0);
  const size = bytes ?? whole;
  const piece = Math.min(size, PAGE);
  const between = Array.from({ length: 16 }, () => randomInt(Math.max(1, Math.floor(size / piece) - 1)) * piece);
  const pieces = new Map([0, size - piece, ...between].map((offset) => [offset, randomBytes(piece)]));
  for (const [offset, data] of pieces) await vm.memory.write(address + offset, data);
  return pieces;
}

/** The offsets at which BAR 0 does not hold the imprint. */
export async function mismatches(vm: Vm, expected: Imprint, slot = VFIO_SLOT): Promise<number[]> {
  const { address } = await vm.bar(slot, 0);
  const wrong: number[] = [];
  for (const [offset, bytes] of expected) {
    const seen = await vm.memory.read(address + offset, bytes.length);
    if (!seen.equals(bytes)) wrong.push(offset);
  }
  return wrong;
}
