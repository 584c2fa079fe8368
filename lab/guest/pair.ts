import assert from 'node:assert/strict';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import { Mtty, type MttyType } from './mtty.ts';
import { hashOfMtty, imprintOf, Uart } from './uart.ts';
import { BY_CDEV, hashOfMemory, startMttyVm, underShim } from './vm.ts';

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
/** A new VMM whose device goes through both halves of the bridge. */
export const ROUND: End = { qemu: '10.0', shim: ['--present', 'v2', '--round-trip'] };

/**
 * The same with a small data section, for takeovers: its size is also what QEMU 10 is told that stop-and-copy may cost. While a
 * VMM waits for a successor it measures no bandwidth, by which 16 MiB would take for ever.
 */
export const ROUND_SMALL: End = { qemu: '10.0', shim: ['--present', 'v2', '--round-trip', '--data-size', '4K'] };

/** A new VMM that opens its devices by their own nodes, in a guest that has them: natively, under `run` as it is, and as ROUND. */
export const CDEV: End = { ...NEW, options: BY_CDEV };
export const CDEV_AUTO: End = { ...CDEV, shim: [] };
export const CDEV_ROUND: End = { ...ROUND, options: BY_CDEV };

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
    ...(end.shim === undefined ? {} : { prefix: underShim(name, ...end.shim) }),
    ...end.options,
    ...options,
  });
  return { vm, mttys };
}

/** The seed of a device's port. */
const seedOf = (seed: number, device: number, port: number): number => (seed + 0x31 * device + 0x6b * port) & 0xff;

/** All ports of a VM's devices, each with a seed of its own. */
function portsOf({ vm, mttys }: LabVm, seed: number): { uart: Uart; seed: number }[] {
  return mttys.flatMap(({ ports }, device) =>
    Array.from({ length: ports }, (_, port) => ({
      uart: new Uart(vm, { port, slot: VFIO_SLOT + device }),
      seed: seedOf(seed, device, port),
    })),
  );
}

/** Puts a pattern of the seed into all ports of a VM's devices. */
export async function imprintDevices(target: LabVm, seed: number): Promise<void> {
  for (const port of portsOf(target, seed)) await port.uart.imprint(port.seed);
}

/** All ports of a VM's devices have the pattern of the seed: registers and receive FIFO. */
export async function assertDevices(target: LabVm, seed: number): Promise<void> {
  for (const port of portsOf(target, seed)) assert.deepEqual(await port.uart.state(), imprintOf(port.seed));
}

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
  await imprintDevices(source, seed);
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

/** Starts both ends at once, which takes less time than one after the other. */
export async function startBoth(
  bed: TestBed,
  from: End,
  to: End,
  seed: number,
): Promise<{ source: LabVm; destination: LabVm }> {
  const [source, destination] = await Promise.all([startSource(bed, from, seed), startDestination(bed, to)]);
  return { source, destination };
}

/** A VM that was migrated paused goes on when it is told to, with its devices as the seed says; its CPU runs. */
export async function assertGoesOn(target: LabVm, seed: number): Promise<void> {
  await target.vm.cont();
  await assertRuns(target, seed);
}

/** A VM runs, with its devices as the seed says. */
export async function assertRuns(target: LabVm, seed: number): Promise<void> {
  await target.vm.waitForStatus('running');
  await assertDevices(target, seed);
  await target.vm.waitForTicks();
}

/**
 * The destination has all of the source's memory, goes on when it is told to, and its devices have every register that the
 * source's had. A VMM leaves its device RESUMING until then; mtty takes the registers over when that ends.
 */
export async function assertArrived(bed: TestBed, source: LabVm, destination: LabVm, seed: number): Promise<void> {
  assert.equal(await hashOfMemory(destination.vm, bed), await hashOfMemory(source.vm, bed));
  await assertGoesOn(destination, seed);
  for (const [device, mtty] of destination.mttys.entries()) {
    const slot = VFIO_SLOT + device;
    assert.equal(await hashOfMtty(destination.vm, mtty.ports, slot), await hashOfMtty(source.vm, mtty.ports, slot));
  }
}
