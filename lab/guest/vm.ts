import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { MEMORY_MIB } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { protocolOf } from '../../tools/vmm/binaries.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import type { Mtty } from './mtty.ts';
import { markOf } from './serving.ts';

/** QEMU 10.0 and later would have mtty's DMA_LOGGING_REPORT say which pages are dirty, and that says EOPNOTSUPP. */
const WITHOUT_DIRTY_TRACKING = ['x-device-dirty-page-tracking=off'];

/** Options of a new VM whose devices are opened by their own nodes, in a guest that has them. */
export const BY_CDEV: VmOptions = {
  args: ['-object', 'iommufd,id=iommufd0'],
  vfioProperties: ['iommufd=iommufd0'],
};

/** Starts a VM that has these devices. */
export function startMttyVm(bed: TestBed, name: string, mttys: readonly Mtty[], options: VmOptions = {}): Promise<Vm> {
  const tracking = protocolOf(options.qemu ?? '7.2') === 'v2' ? WITHOUT_DIRTY_TRACKING : [];
  return bed.startVm(name, {
    ...options,
    vfio: mttys.map(({ sysfs }) => sysfs),
    vfioProperties: [...tracking, ...(options.vfioProperties ?? [])],
  });
}

/** What a program runs under to be under `vfio-shim run` with these options; `name` is what serving() finds it by. */
export function underShim(name: string, ...options: readonly string[]): string[] {
  requireCli();
  return ['env', markOf(name), process.execPath, CLI, 'run', ...options, '--'];
}

/** A hash over the VM's memory; meaningful while its CPU is stopped. */
export async function hashOfMemory(vm: Vm, bed: TestBed, bytes = MEMORY_MIB * 2 ** 20): Promise<string> {
  const file = bed.path(`${vm.name}.memory`);
  await vm.qmp.execute('pmemsave', { val: 0, size: bytes, filename: file }, 60_000);
  try {
    return createHash('sha256').update(readFileSync(file)).digest('hex');
  } finally {
    rmSync(file);
  }
}
