import assert from 'node:assert/strict';
import type { QemuVersion } from '../../test/real/binaries.ts';
import type { Vm, VmOptions } from '../../test/real/qemu.ts';
import type { TestBed } from '../../test/real/test-bed.ts';
import { Mtty, type MttyType } from './mtty.ts';
import { hashOfMtty, Uart } from './uart.ts';
import { hashOfMemory, startMttyVm, underShim } from './vm.ts';

/** One end of a migration: a QEMU, native or under `vfio-shim run` with these options. */
export interface End {
  readonly qemu: QemuVersion;
  readonly shim?: readonly string[];
  readonly type?: MttyType;
  /** How many devices. */
  readonly devices?: number;
  readonly options?: VmOptions;
}

/** An old VMM as the shim is made for. */
export const OLD: End = { qemu: '7.2', shim: ['--present', 'v1'] };
/** A new VMM that needs no shim. */
export const NEW: End = { qemu: '10.0' };

/** A VM and the devices of the kernel that it has. */
export interface LabVm {
  readonly vm: Vm;
  readonly mttys: readonly Mtty[];
}

/** Starts one end. The devices are new unless they are given. */
export async function startEnd(
  bed: TestBed,
  name: string,
  end: End,
  options: VmOptions = {},
  given?: readonly Mtty[],
): Promise<LabVm> {
  const mttys = given ?? Array.from({ length: end.devices ?? 1 }, () => Mtty.create(end.type ?? 'mtty-2'));
  const vm = await startMttyVm(bed, name, mttys, {
    qemu: end.qemu,
    ...(end.shim === undefined ? {} : { prefix: underShim(...end.shim) }),
    ...end.options,
    ...options,
  });
  return { vm, mttys };
}

/** The seed of a device's port. */
const seedOf = (seed: number, device: number, port: number): number => (seed + 0x31 * device + 0x6b * port) & 0xff;

/** Starts the source, with a pattern of the seed in the registers of all its ports. */
export async function startSource(
  bed: TestBed,
  end: End,
  seed: number,
  name = 'source',
  given?: readonly Mtty[],
): Promise<LabVm> {
  const source = await startEnd(bed, name, end, {}, given);
  await source.vm.waitForFirmware();
  for (const [device, mtty] of source.mttys.entries()) {
    for (let port = 0; port < mtty.ports; port += 1) {
      await new Uart(source.vm, { port, slot: 4 + device }).imprint(seedOf(seed, device, port));
    }
  }
  return source;
}

/** Starts the destination paused, so that its memory can be compared before it goes on. */
export function startDestination(
  bed: TestBed,
  end: End,
  name = 'destination',
  given?: readonly Mtty[],
): Promise<LabVm> {
  return startEnd(bed, name, end, { incoming: true, paused: true }, given);
}

/**
 * The destination has all of the source's memory, goes on when it is told to, and its devices have every register that the
 * source's had. A VMM leaves its device RESUMING until then; mtty takes the registers over when that ends.
 */
export async function assertArrived(bed: TestBed, source: LabVm, destination: LabVm, seed: number): Promise<void> {
  assert.equal(await hashOfMemory(destination.vm, bed), await hashOfMemory(source.vm, bed));
  await destination.vm.cont();
  await destination.vm.waitForStatus('running');
  for (const [device, mtty] of destination.mttys.entries()) {
    const slot = 4 + device;
    for (let port = 0; port < mtty.ports; port += 1) {
      assert.equal(await new Uart(destination.vm, { port, slot }).scratch(), seedOf(seed, device, port));
    }
    assert.equal(await hashOfMtty(destination.vm, mtty.ports, slot), await hashOfMtty(source.vm, mtty.ports, slot));
  }
  await destination.vm.waitForTicks();
}
