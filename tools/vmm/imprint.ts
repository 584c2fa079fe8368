import { randomBytes, randomInt } from 'node:crypto';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/** Bytes that a test put into a device's BAR 0, by offset. */
export type Imprint = ReadonlyMap<number, Buffer>;

const PIECE = 4096;

/** Writes random bytes into BAR 0 as the guest would: the first page, the last, and some between. */
export async function imprint(vm: Vm, slot = VFIO_SLOT): Promise<Imprint> {
  const { address, size } = await vm.bar(slot, 0);
  const pages = size / PIECE;
  const between = Array.from({ length: 16 }, () => randomInt(pages) * PIECE);
  const pieces = new Map([0, size - PIECE, ...between].map((offset) => [offset, randomBytes(PIECE)]));
  for (const [offset, bytes] of pieces) await vm.memory.write(address + offset, bytes);
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
