/** The COMMAND register, and the bit of it without which a device does no DMA (linux/pci_regs.h: PCI_COMMAND, PCI_COMMAND_MASTER). */
const COMMAND_AT = 4;
const MASTER = 4;

/** The config space of an emulated device, which the VMM writes to without a trap. */
export class PciConfig {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  fill(bytes: Uint8Array): void {
    this.#bytes.set(bytes);
  }

  get isBusMaster(): boolean {
    return ((this.#bytes[COMMAND_AT] ?? 0) & MASTER) !== 0;
  }

  clearBusMaster(): void {
    this.#bytes[COMMAND_AT] = (this.#bytes[COMMAND_AT] ?? 0) & ~MASTER;
  }
}
