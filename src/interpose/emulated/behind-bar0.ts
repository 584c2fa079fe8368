import { VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio.ts';
import { MSIX_BAR_SIZE, MSIX_TABLE_SIZE } from '../../sim/pci-capabilities.ts';
import { addressOf } from '../../sys/libc.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Turn } from '../memory/turn.ts';
import type { RegionsBehindBar0 } from '../serve/devices.ts';
import { TargetBuffer } from '../trap/target-buffer.ts';
import type { EmulatedDevice } from './emulated-driver.ts';
import { readMsixBar, writeMsixBar } from './msix-bar.ts';

/** What a target does behind BAR0 of a device, as vfio-pci answers it (drivers/vfio/pci/vfio_pci_core.c of Linux 6.12: vfio_pci_rw). */
export class BehindBar0 implements RegionsBehindBar0 {
  readonly #device: EmulatedDevice;

  constructor(device: EmulatedDevice) {
    this.#device = device;
  }

  /** What config space holds is read without a trap: here comes only what is behind it. */
  read({ call }: Turn, region: number, offset: number): number {
    const buffer = TargetBuffer.of(call);
    if (buffer.length === 0) return 0;
    if (region === VFIO_PCI_CONFIG_REGION_INDEX) throw behindConfig(offset, buffer.length);
    const length = this.#inMsixBar(region, offset, buffer.length);
    this.#device.counted();
    const bytes = new Uint8Array(length);
    readMsixBar(this.#device.driver.irqs, offset, bytes);
    buffer.write(addressOf(bytes), length); // SAFETY: `bytes` is referenced below
    return bytes.length;
  }

  write(turn: Turn, region: number, offset: number): number {
    const buffer = TargetBuffer.of(turn.call);
    if (buffer.length === 0) return 0;
    if (region === VFIO_PCI_CONFIG_REGION_INDEX) return this.#writeConfig(turn, offset, buffer);
    const length = this.#inMsixBar(region, offset, buffer.length);
    const bytes = new Uint8Array(length);
    buffer.read(addressOf(bytes), length); // SAFETY: `bytes` is used below
    this.#device.counted();
    writeMsixBar(this.#device.driver.irqs, offset, bytes);
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
    device.counted();
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
