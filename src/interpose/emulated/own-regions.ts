import { MAP_PRIVATE, MAP_TYPE } from '../../abi/mman.ts';
import {
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
} from '../../abi/vfio.ts';
import { MSIX_BAR_SIZE, MSIX_TABLE_SIZE } from '../../sim/pci-capabilities.ts';
import { addressOf, inPages, PAGE_SIZE } from '../../sys/libc.ts';
import { withSharedMemory } from '../../sys/memory.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Turn } from '../memory/turn.ts';
import { BAR0_OFFSET } from '../run/window.ts';
import type { OwnRegions } from '../serve/devices.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import { TargetBuffer } from '../trap/target-buffer.ts';
import type { EmulatedDevice } from './emulated-driver.ts';
import { readMsixBar, writeMsixBar } from './msix-bar.ts';

/**
 * What a target does with the regions of an emulated device, as vfio-pci answers it (drivers/vfio/pci/vfio_pci_core.c of Linux 6.12: vfio_pci_rw,
 * vfio_pci_core_mmap). What it does within BAR0 the kernel does.
 */
export class EmulatedOwnRegions implements OwnRegions {
  readonly #device: EmulatedDevice;
  readonly #grants: (tid: number, fd: number) => boolean;

  /** `grants`: whether a descriptor gives access to the device. */
  constructor(device: EmulatedDevice, grants: (tid: number, fd: number) => boolean) {
    this.#device = device;
    this.#grants = grants;
  }

  /** As vfio_device_fops_read, _write and _mmap begin. */
  #checkAccess({ tid }: Call, fd: number): void {
    if (!this.#grants(tid, fd)) throw refuse('EINVAL', 'the device is not bound by this descriptor');
  }

  read({ call }: Turn, region: number, offset: number): number {
    this.#checkAccess(call, call.s32(0));
    const buffer = TargetBuffer.of(call);
    if (buffer.length === 0) return 0;
    if (region === VFIO_PCI_BAR0_REGION_INDEX) {
      this.#inBar0(offset, buffer.length);
      return CONTINUE; // it ends where BAR0 ends
    }
    const bytes = this.#bytesAt(region, offset, buffer.length);
    this.#device.counted(bytes);
    buffer.write(addressOf(bytes), bytes.length); // SAFETY: `bytes` is referenced below
    return bytes.length;
  }

  #bytesAt(region: number, offset: number, length: number): Uint8Array {
    if (region === VFIO_PCI_CONFIG_REGION_INDEX) {
      const { config } = this.#device.driver;
      if (length > config.size - offset) throw behindConfig(offset, length);
      const bytes = new Uint8Array(length);
      config.read(offset, bytes);
      return bytes;
    }
    const bytes = new Uint8Array(this.#inMsixBar(region, offset, length));
    readMsixBar(this.#device.driver.irqs, offset, bytes);
    return bytes;
  }

  write(turn: Turn, region: number, offset: number): number {
    this.#checkAccess(turn.call, turn.call.s32(0));
    const buffer = TargetBuffer.of(turn.call);
    if (buffer.length === 0) return 0;
    if (region === VFIO_PCI_CONFIG_REGION_INDEX) return this.#writeConfig(turn, offset, buffer);
    if (region === VFIO_PCI_BAR0_REGION_INDEX) return this.#writeBar0(offset, buffer);
    const length = this.#inMsixBar(region, offset, buffer.length);
    const bytes = new Uint8Array(length);
    buffer.read(addressOf(bytes), length); // SAFETY: `bytes` is used below
    this.#device.counted(bytes);
    writeMsixBar(this.#device.driver.irqs, offset, bytes);
    return length;
  }

  checkMap(call: Call, region: number, offset: number): void {
    this.#checkAccess(call, call.s32(4));
    const { bar } = this.#device.driver.plan;
    const length = call.count(1);
    const type = call.u32(3) & MAP_TYPE;
    if (region !== VFIO_PCI_BAR0_REGION_INDEX) throw refuse('EINVAL', `mmap: region ${region} cannot be mapped`);
    if (type === MAP_PRIVATE) throw refuse('EINVAL', 'mmap: BAR0 is not mapped privately');
    if (inPages(length) > inPages(bar - offset)) throw refuse('EINVAL', `mmap: ${length} bytes at ${offset} of ${bar}`);
  }

  /** How many of so many bytes there are of BAR0 (vfio_pci_bar_rw). */
  #inBar0(offset: number, length: number): number {
    const { bar } = this.#device.driver.plan;
    if (offset >= bar) throw refuse('EINVAL', `BAR0: there is nothing at ${offset}`);
    return Math.min(length, bar - offset);
  }

  /** A file that cannot grow refuses to be written over its end, where a BAR takes as much as it has. */
  #writeBar0(offset: number, buffer: TargetBuffer): number {
    const length = this.#inBar0(offset, buffer.length);
    if (length === buffer.length) return CONTINUE;
    this.#device.counted();
    const from = offset - (offset % PAGE_SIZE);
    const { files, plan } = this.#device.driver;
    withSharedMemory(files.device, plan.bar - from, BAR0_OFFSET + from, (bytes) =>
      buffer.read(addressOf(bytes) + offset - from, length),
    );
    return length;
  }

  /** How many of so many bytes there are of that region (vfio_pci_bar_rw). The table is there even if the BAR is not (vfio_pci_core_do_io_rw). */
  #inMsixBar(region: number, offset: number, length: number): number {
    if (region !== VFIO_PCI_BAR2_REGION_INDEX || offset >= MSIX_BAR_SIZE) {
      throw refuse('EINVAL', `region ${region}: there is nothing at ${offset}`);
    }
    const end = Math.min(offset + length, MSIX_BAR_SIZE);
    if (end > MSIX_TABLE_SIZE && !this.#device.driver.config.decodesMemory) {
      throw refuse('EIO', `region ${region}: the device decodes no memory`);
    }
    return end - offset;
  }

  #writeConfig(turn: Turn, offset: number, buffer: TargetBuffer): number {
    const device = this.#device;
    const { config } = device.driver;
    const { length } = buffer;
    if (length > config.size - offset) throw behindConfig(offset, length);
    const bytes = new Uint8Array(length);
    buffer.read(addressOf(bytes), length); // SAFETY: `bytes` is used below
    device.counted(bytes);
    const resets = config.write(offset, bytes);
    device.driver.irqs.onConfig();
    if (!resets) return length;
    turn.touch(device.ledger);
    device.usedBy(turn.call.tid);
    try {
      device.reset(() => turn.settle());
    } finally {
      device.leave();
    }
    return length;
  }
}

/** As vfio_pci_config_rw says it. */
function behindConfig(offset: number, length: number): Error {
  return refuse('EFAULT', `config space: ${length} bytes at ${offset}`);
}
