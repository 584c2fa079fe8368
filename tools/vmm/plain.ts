import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { MEMORY_MIB } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { TestBed, VmOptions } from './test-bed.ts';

/** The PCI slot of an ordinary device whose BAR 2 is memory that migrates with the VM. */
export const PLAIN_SLOT = 3;
export const PLAIN_BAR = 2;
export const PLAIN_SIZE = 1024 * 1024;

/** Several pages of that memory, and a part of one. */
const PATTERN_SIZE = 300_000;

/**
 * The VM's own memory is named so that it comes first: QEMU 10.0's cpu_physical_memory_sync_dirty_bitmap (include/exec/ram_addr.h)
 * takes offsets in a block for RAM addresses, which under TCG aborts a live migration if the largest block has another place.
 */
const SHARED_MEMORY = [
  '-object',
  `memory-backend-ram,id=pc.ram,size=${MEMORY_MIB}M`,
  '-machine',
  'memory-backend=pc.ram',
  '-object',
  `memory-backend-ram,id=shared,size=${PLAIN_SIZE}`,
  '-device',
  `ivshmem-plain,memdev=shared,master=on,addr=${PLAIN_SLOT}`,
];

/** Starts a VM without a VFIO device. */
export function startPlainVm(bed: TestBed, name: string, options: VmOptions = {}): Promise<Vm> {
  return bed.startVm(name, { ...options, args: [...SHARED_MEMORY, ...(options.args ?? [])] });
}

/** A booted VM whose device memory holds a pattern that no other run has. */
export async function startPlainSource(
  bed: TestBed,
  options: VmOptions = {},
): Promise<{ source: Vm; pattern: Buffer; ticks: number }> {
  const source = await startPlainVm(bed, 'source', options);
  await source.waitForFirmware();
  const pattern = randomBytes(PATTERN_SIZE);
  const bar = await source.bar(PLAIN_SLOT, PLAIN_BAR);
  await source.memory.write(bar.address, pattern);
  return { source, pattern, ticks: await source.ticks() };
}

/** The VM runs, from where it was, and has the pattern. */
export async function expectArrived(vm: Vm, { pattern, ticks }: { pattern: Buffer; ticks: number }): Promise<void> {
  await vm.waitForStatus('running');
  const bar = await vm.bar(PLAIN_SLOT, PLAIN_BAR);
  const seen = await vm.memory.read(bar.address, pattern.length);
  assert.ok(seen.equals(pattern), `VM ${vm.name}: the shared memory differs`);
  const now = await vm.ticks();
  assert.ok(now >= ticks, `VM ${vm.name}: ${now} ticks, after ${ticks}`);
  await vm.waitForTicks();
}
