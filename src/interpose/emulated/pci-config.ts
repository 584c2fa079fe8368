/** The COMMAND register, and the bit of it without which a device does no DMA (linux/pci_regs.h: PCI_COMMAND, PCI_COMMAND_MASTER). */
const COMMAND_AT = 4;
const MASTER = 4;
/** In its second byte, the bit that turns INTx off (PCI_COMMAND_INTX_DISABLE). */
const INTX_DISABLE = 4;
/** The STATUS register (PCI_STATUS), and the bits of its two bytes that are cleared by writing them. */
const STATUS_AT = 6;
const CLEARED = [0x00, 0xf9] as const;

/** What a device's config space begins with, and which of its bits can be written. */
export interface ConfigSpace {
  readonly initial: Uint8Array;
  readonly writable: Uint8Array;
}

/**
 * The config space of an emulated device. The VMM reads it without a trap, from the file where it lies; what it writes comes by here, as
 * vfio-pci has it (drivers/vfio/pci/vfio_pci_config.c of Linux 6.12).
 */
export class PciConfig {
  readonly #bytes: Uint8Array;
  readonly #space: ConfigSpace;

  constructor(bytes: Uint8Array, space: ConfigSpace) {
    this.#bytes = bytes.subarray(0, space.initial.length);
    this.#space = space;
  }

  /** In bytes. */
  get size(): number {
    return this.#bytes.length;
  }

  /** As it is when the device is opened: an earlier user has left nothing. */
  begin(): void {
    this.#bytes.set(this.#space.initial);
  }

  /** Writes what can be written of these bytes, which are within the space. */
  write(offset: number, from: Uint8Array): void {
    const bytes = this.#bytes;
    for (const [n, value] of from.entries()) {
      const at = offset + n;
      const old = bytes[at] ?? 0;
      const mask = this.#space.writable[at] ?? 0;
      bytes[at] = ((old & ~mask) | (value & mask)) & ~(value & (CLEARED[at - STATUS_AT] ?? 0));
    }
  }

  get isBusMaster(): boolean {
    return ((this.#bytes[COMMAND_AT] ?? 0) & MASTER) !== 0;
  }

  get isIntxDisabled(): boolean {
    return ((this.#bytes[COMMAND_AT + 1] ?? 0) & INTX_DISABLE) !== 0;
  }
}
