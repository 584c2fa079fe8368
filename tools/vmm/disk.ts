import { poll } from '../../src/vmm/deadline.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import type { TestBed } from './test-bed.ts';

interface Job {
  readonly id: string;
  readonly status: string;
  readonly error?: string;
}

const SIZE = 64 * 1024 * 1024;

/** Makes an empty image with a QEMU that ends again; qemu-img is not required. */
export async function makeDisk(bed: TestBed, file: string, format: 'qcow2' | 'raw'): Promise<void> {
  const vm = await bed.startVm(`${format}-maker`, { paused: true });
  await create(vm, { driver: 'file', filename: file, size: SIZE });
  if (format === 'qcow2') {
    await vm.qmp.execute('blockdev-add', { driver: 'file', 'node-name': 'file', filename: file });
    await create(vm, { driver: 'qcow2', file: 'file', size: SIZE });
  }
  await vm.quit();
}

/** blockdev-create is a job: whether it has failed is known only to who asks. */
async function create(vm: Vm, options: Readonly<Record<string, unknown>>): Promise<void> {
  await vm.qmp.execute('blockdev-create', { 'job-id': 'create', options });
  const concluded = async (): Promise<Job | undefined> =>
    (await vm.qmp.execute<Job[]>('query-jobs')).find(({ status }) => status === 'concluded');
  const { error } = await poll(concluded, 15_000, 'an image to be made');
  if (error !== undefined) throw new Error(`blockdev-create ${JSON.stringify(options)}: ${error}`);
  await vm.qmp.execute('job-dismiss', { id: 'create' });
}

/** The options of a VM with such a disk, in a slot that no other device has. */
export function diskArgs(file: string, format: 'qcow2' | 'raw'): string[] {
  return ['-drive', `if=none,id=disk,file=${file},format=${format}`, '-device', 'virtio-blk-pci,drive=disk,addr=3'];
}
