import {
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP_FLR,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL_BCR_FLR,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_ENABLE,
  PCI_MSI_FLAGS_QSIZE,
  PCI_MSI_MASK_64,
  PCI_PM_CTRL,
  PCI_PM_CTRL_NO_SOFT_RESET,
  PCI_PM_CTRL_STATE_MASK,
} from '../../abi/pci.ts';
import type { ConfigSpace } from '../../sim/pci.ts';
import { expAt, msiAt, msixAt, pmAt } from '../../sim/pci-capabilities.ts';

/** The power states that there are (PCI_PM_CTRL_STATE_MASK). */
const D0 = 0;
const D3HOT = 3;

/** What is kept beside config space: how many messages MSI was last enabled with, as a power of two, and whether it is enabled. */
const MSI_QMAX = 0;
const MSI_IS_ON = 1;
/** Bytes of it. */
export const KEPT_SIZE = 2;

/**
 * The config space of an emulated device. What the VMM reads and writes of it comes by here, as
 * vfio-pci has it (drivers/vfio/pci/vfio_pci_config.c of Linux 6.12).
 */
export class PciConfig {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #space: ConfigSpace;
  readonly #kept: Uint8Array;
  readonly #shown: Uint8Array | undefined;

  /**
   * `kept`: `KEPT_SIZE` bytes that live as long as `bytes`, and that no VMM sees. `shown`: where a VMM reads the space by itself. What it may
   * write there by some way around its supervisor is nothing to anybody else, and is gone with the next change.
   */
  constructor(bytes: Uint8Array, space: ConfigSpace, kept: Uint8Array, shown?: Uint8Array) {
    this.#bytes = bytes.subarray(0, space.initial.length);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, space.initial.length);
    this.#space = space;
    this.#kept = kept;
    this.#shown = shown;
    this.#show(); // a supervisor before this one may have been killed before it did
  }

  #show(): void {
    this.#shown?.set(this.#bytes);
  }

  /** In bytes. */
  get size(): number {
    return this.#bytes.length;
  }

  /** As it is when the device is opened: an earlier user has left nothing. */
  begin(): void {
    this.#bytes.set(this.#space.initial);
    this.#kept.fill(0, 0, KEPT_SIZE);
    this.#show();
  }

  /** Fills `into` with bytes that are within the space. */
  read(offset: number, into: Uint8Array): void {
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  /** vfio-pci opens the device, and has it decode memory (pci_enable_device, which the copy for the user comes after: vfio_config_init). */
  enable(): void {
    this.#command |= PCI_COMMAND_MEMORY;
    this.#show();
  }

  /** Writes what can be written of these bytes, which are within the space. Returns true if that resets the function. */
  write(offset: number, from: Uint8Array): boolean {
    const bytes = this.#bytes;
    let resets = false;
    for (const [n, value] of from.entries()) {
      const at = offset + n;
      const old = bytes[at] ?? 0;
      const mask = this.#space.writable[at] ?? 0;
      bytes[at] = (old & ~mask) | (value & mask);
      if (at === pmAt + PCI_PM_CTRL) resets ||= this.#setPowerState(value & PCI_PM_CTRL_STATE_MASK);
      if (at === msiAt + PCI_MSI_FLAGS) this.#limitMsi();
    }
    resets = this.#takeFlr() || resets;
    this.#show();
    return resets;
  }

  /**
   * The function has been reset, by whatever: it is in D0, and all else is as it was, since the kernel saves it before and restores it after
   * (drivers/pci/pci.c of Linux 6.12: pci_dev_save_and_disable, pci_dev_restore; vfio_pci_core.c: vfio_pci_set_power_state), but the mask of MSI, of which
   * it knows nothing.
   */
  wasReset(): void {
    const at = pmAt + PCI_PM_CTRL;
    this.#view.setUint8(at, this.#view.getUint8(at) & ~PCI_PM_CTRL_STATE_MASK);
    this.#view.setUint32(msiAt + PCI_MSI_MASK_64, 0, true);
    this.#show();
  }

  /**
   * A state that the function has not is not taken (vfio_pm_config_write, pci_set_power_state). Returns true if the way to D0 resets the
   * function, which is there once it is: wasReset().
   */
  #setPowerState(state: number): boolean {
    if (state !== D0 && state !== D3HOT) return false;
    const at = pmAt + PCI_PM_CTRL;
    const control = this.#view.getUint8(at);
    const isSoftReset = (control & PCI_PM_CTRL_NO_SOFT_RESET) === 0;
    if (isSoftReset && state === D0 && !this.isInD0) return true;
    this.#view.setUint8(at, (control & ~PCI_PM_CTRL_STATE_MASK) | state);
    return false;
  }

  /** MSI is enabled by SET_IRQS, with as many messages: what the user writes says no more than that (vfio_msi_config_write). */
  #limitMsi(): void {
    const at = msiAt + PCI_MSI_FLAGS;
    let flags = this.#view.getUint16(at, true);
    const qmax = this.#kept[MSI_QMAX] ?? 0;
    if (this.#kept[MSI_IS_ON] !== 1) flags &= ~PCI_MSI_FLAGS_ENABLE;
    if ((flags & PCI_MSI_FLAGS_QSIZE) >> 4 > qmax) flags = (flags & ~PCI_MSI_FLAGS_QSIZE) | (qmax << 4);
    this.#view.setUint16(at, flags, true);
  }

  /** The bit reads as 0 always, whether or not the function can be reset so (vfio_exp_config_write). */
  #takeFlr(): boolean {
    const at = expAt + PCI_EXP_DEVCTL;
    const control = this.#view.getUint16(at, true);
    if ((control & PCI_EXP_DEVCTL_BCR_FLR) === 0) return false;
    this.#view.setUint16(at, control & ~PCI_EXP_DEVCTL_BCR_FLR, true);
    return (this.#view.getUint32(expAt + PCI_EXP_DEVCAP, true) & PCI_EXP_DEVCAP_FLR) !== 0;
  }

  /** SET_IRQS has enabled MSI with so many messages, or disabled it: 0. The user's own bit follows the next write (vfio_msi_enable). */
  setMsiEnabled(vectors: number): void {
    if (vectors > 0) this.#kept[MSI_QMAX] = Math.ceil(Math.log2(vectors));
    this.#kept[MSI_IS_ON] = vectors > 0 ? 1 : 0;
  }

  /** SET_IRQS has enabled MSI-X, or disabled it, and the function's own bit says so. */
  setMsixEnabled(on: boolean): void {
    const at = msixAt + PCI_MSIX_FLAGS;
    const flags = this.#view.getUint16(at, true) & ~PCI_MSIX_FLAGS_ENABLE;
    this.#view.setUint16(at, on ? flags | PCI_MSIX_FLAGS_ENABLE : flags, true);
    this.#show();
  }

  /** Without power a function begins nothing, no interrupt either. */
  get isInD0(): boolean {
    return (this.#view.getUint8(pmAt + PCI_PM_CTRL) & PCI_PM_CTRL_STATE_MASK) === D0;
  }

  /** Its BARs are there (vfio_pci_config.c: __vfio_pci_memory_enabled). */
  get decodesMemory(): boolean {
    return this.isInD0 && (this.#command & PCI_COMMAND_MEMORY) !== 0;
  }

  /** It may write to memory. */
  get isBusMaster(): boolean {
    return this.isInD0 && (this.#command & PCI_COMMAND_MASTER) !== 0;
  }

  get isIntxDisabled(): boolean {
    return (this.#command & PCI_COMMAND_INTX_DISABLE) !== 0;
  }

  get #command(): number {
    return this.#view.getUint16(PCI_COMMAND, true);
  }

  set #command(value: number) {
    this.#view.setUint16(PCI_COMMAND, value, true);
  }
}
