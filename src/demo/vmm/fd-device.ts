import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../abi/mman.ts';
import { VFIO_DEVICE_RESET, VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { addressOf, memoryAt, syscall } from '../../sys/libc.ts';
import type { V1Device } from '../../v1/device.ts';
import { migrationRegion, region, type Region } from './regions.ts';
import { tell } from './steps.ts';
import { ioctl } from './vfio.ts';

const [, DEVICE_STATE_AT] = vfio_device_migration_info.fields.device_state;

/** A device as a v1 VMM uses it: registers by pread and pwrite on its descriptor, data section and BAR0 by mmap. */
export class FdDevice implements V1Device {
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  readonly mapped: Uint8Array;
  /** What the guest sees. */
  readonly bar: Uint8Array;
  readonly config: Uint8Array;
  readonly #fd: number;
  readonly #region: Region;

  constructor(fd: number) {
    this.#fd = fd;
    const migration = migrationRegion(fd);
    this.#region = migration;
    this.regionSize = migration.size;
    this.dataSection = migration.dataSection;
    const { offset, size } = migration.dataSection;
    this.mapped = map('data section', fd, migration.offset + BigInt(offset), size);
    const bar = region(fd, VFIO_PCI_BAR0_REGION_INDEX);
    this.bar = map('BAR0', fd, bar.offset, bar.size);
    const config = region(fd, VFIO_PCI_CONFIG_REGION_INDEX);
    this.config = new Uint8Array(config.size);
    this.#transfer('pread64', config, 0, this.config);
  }

  read(offset: number, into: Uint8Array): void {
    const data = this.#mappedPart(offset, into.length);
    if (data === undefined) this.#transfer('pread64', this.#region, offset, into);
    else into.set(data);
  }

  write(offset: number, from: Uint8Array): void {
    const data = this.#mappedPart(offset, from.length);
    if (data !== undefined) {
      data.set(from);
      return;
    }
    this.#transfer('pwrite64', this.#region, offset, from);
    if (offset === DEVICE_STATE_AT) tell({ step: 'device_state', value: from[0] ?? 0 });
  }

  reset(): void {
    ioctl('VFIO_DEVICE_RESET', this.#fd, VFIO_DEVICE_RESET, 0);
  }

  #mappedPart(offset: number, length: number): Uint8Array | undefined {
    const at = offset - this.dataSection.offset;
    return at >= 0 && at + length <= this.mapped.length ? this.mapped.subarray(at, at + length) : undefined;
  }

  #transfer(call: 'pread64' | 'pwrite64', { offset }: Region, at: number, bytes: Uint8Array): void {
    // SAFETY: `bytes` is referenced until the call returns.
    const place = offset + BigInt(at);
    const done = syscall(`region at ${at}`, call, this.#fd, addressOf(bytes), bytes.length, place);
    if (done !== bytes.length) throw new ShimError('ERR_ACCESS', `region at ${at}: ${call} moved ${done} bytes`);
  }
}

/** SAFETY: the mapping stays until this process ends. */
function map(what: string, fd: number, offset: bigint, size: number): Uint8Array {
  return memoryAt(syscall(`map ${what}`, 'mmap', 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset), size);
}
