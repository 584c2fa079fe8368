import {
  PCI_CAP_ID_EXP,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_PM,
  PCI_CAP_MSIX_SIZEOF,
  PCI_CFG_SPACE_SIZE,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP2,
  PCI_EXP_DEVCAP2_COMP_TMOUT_DIS,
  PCI_EXP_DEVCAP_FLR,
  PCI_EXP_DEVCAP_RBER,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL2,
  PCI_EXP_DEVCTL2_COMP_TMOUT_DIS,
  PCI_EXP_DEVCTL_AUX_PME,
  PCI_EXP_DEVCTL_EXT_TAG,
  PCI_EXP_DEVCTL_PHANTOM,
  PCI_EXP_FLAGS,
  PCI_EXP_LNKCAP,
  PCI_EXP_LNKCAP2,
  PCI_EXP_LNKCTL2,
  PCI_EXP_LNKSTA,
  PCI_EXT_CAP_ID_DSN,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_FLAGS,
  PCI_MSIX_PBA,
  PCI_MSIX_TABLE,
  PCI_MSI_ADDRESS_HI,
  PCI_MSI_ADDRESS_LO,
  PCI_MSI_DATA_64,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_64BIT,
  PCI_MSI_FLAGS_MASKBIT,
  PCI_MSI_MASK_64,
  PCI_PM_CTRL,
  PCI_PM_CTRL_NO_SOFT_RESET,
  PCI_PM_PMC,
  PCI_PM_SIZEOF,
  PCI_STD_HEADER_SIZEOF,
} from '../abi/pci.ts';
import type { ConfigValues } from './config-options.ts';

/** How many messages a device has, by MSI and by MSI-X. */
export const MSI_VECTORS = 4;
export const MSIX_VECTORS = 4;

/** The BAR in which MSI-X has its table and its pending bits, and where in it. */
export const MSIX_BAR = 2;
export const MSIX_BAR_SIZE = 4096;
export const MSIX_TABLE_SIZE: number = MSIX_VECTORS * PCI_MSIX_ENTRY_SIZE;
export const PBA_AT = 0x800;

/** A register of a capability: where, how many bits, what it holds, and which of its bits a user of vfio-pci can write. */
type Register = readonly [at: number, width: 16 | 32, value: number, writable: number];

/** A capability without its first two bytes, which are its ID and where the next one is. */
interface Capability {
  readonly id: number;
  readonly size: number;
  readonly registers: readonly Register[];
}

/** PCI Express: an endpoint, of version 2, on a link of 8 GT/s and 4 lanes. */
const ENDPOINT_V2 = 0x0002;
const LINK = 0x0043;
/** Relaxed ordering, no snoop, and reads of 512 bytes, as after a reset (PCI Express Base Specification: 7.5.3.4). */
const DEVCTL_INITIAL = 0x2810;
const SPEEDS_TO_8GT = 0x0e;
const SIZEOF_EXP_V2 = 0x3c;

/**
 * What can be written is what vfio-pci lets through to a function that has what it says here (drivers/vfio/pci/vfio_pci_config.c of Linux
 * 6.12: init_pci_cap_pm_perm, init_pci_cap_msi_perm, init_pci_cap_exp_perm; of MSI-X nothing). The bits of the power state are not
 * among it, since a state that there is not is not taken.
 */
const CAPABILITIES = {
  /** D0 and D3hot; version 3 of the specification; keeps what it is on the way back; no PME. */
  pm: {
    id: PCI_CAP_ID_PM,
    size: PCI_PM_SIZEOF,
    registers: [
      [PCI_PM_PMC, 16, 0x0003, 0],
      [PCI_PM_CTRL, 16, PCI_PM_CTRL_NO_SOFT_RESET, 0],
    ],
  },
  /** With 64-bit addresses and a mask. The low byte of its flags is vfio-pci's own, and can be written whole. */
  msi: {
    id: PCI_CAP_ID_MSI,
    size: 0x18,
    registers: [
      [PCI_MSI_FLAGS, 16, (Math.log2(MSI_VECTORS) << 1) | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT, 0x00ff],
      [PCI_MSI_ADDRESS_LO, 32, 0, 0xffff_ffff],
      [PCI_MSI_ADDRESS_HI, 32, 0, 0xffff_ffff],
      [PCI_MSI_DATA_64, 16, 0, 0xffff],
      [PCI_MSI_MASK_64, 32, 0, 2 ** MSI_VECTORS - 1],
    ],
  },
  msix: {
    id: PCI_CAP_ID_MSIX,
    size: PCI_CAP_MSIX_SIZEOF,
    registers: [
      [PCI_MSIX_FLAGS, 16, MSIX_VECTORS - 1, 0],
      [PCI_MSIX_TABLE, 32, MSIX_BAR, 0],
      [PCI_MSIX_PBA, 32, PBA_AT | MSIX_BAR, 0],
    ],
  },
  exp: {
    id: PCI_CAP_ID_EXP,
    size: SIZEOF_EXP_V2,
    registers: [
      [PCI_EXP_FLAGS, 16, ENDPOINT_V2, 0],
      [PCI_EXP_DEVCAP, 32, PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR, 0],
      [
        PCI_EXP_DEVCTL,
        16,
        DEVCTL_INITIAL,
        0xffff & ~(PCI_EXP_DEVCTL_PHANTOM | PCI_EXP_DEVCTL_EXT_TAG | PCI_EXP_DEVCTL_AUX_PME),
      ],
      [PCI_EXP_LNKCAP, 32, LINK, 0],
      [PCI_EXP_LNKSTA, 16, LINK, 0],
      [PCI_EXP_DEVCAP2, 32, PCI_EXP_DEVCAP2_COMP_TMOUT_DIS, 0],
      [PCI_EXP_DEVCTL2, 16, 0, PCI_EXP_DEVCTL2_COMP_TMOUT_DIS],
      [PCI_EXP_LNKCAP2, 32, SPEEDS_TO_8GT, 0],
      [PCI_EXP_LNKCTL2, 16, LINK & 0xf, 0],
    ],
  },
} as const satisfies Readonly<Record<string, Capability>>;

type CapabilityName = keyof typeof CAPABILITIES;
const NAMES = Object.keys(CAPABILITIES) as CapabilityName[];

/** Where each capability begins: one behind the other, at multiples of 4, from the end of the header on. */
const places = ((): Readonly<Record<CapabilityName, number>> => {
  let next = PCI_STD_HEADER_SIZEOF;
  const placed = NAMES.map((name) => {
    const at = next;
    next = Math.ceil((at + CAPABILITIES[name].size) / 4) * 4;
    return [name, at] as const;
  });
  return Object.fromEntries(placed) as Record<CapabilityName, number>;
})();

export const firstCapability: number = PCI_STD_HEADER_SIZEOF;
export const { pm: pmAt, msi: msiAt, msix: msixAt, exp: expAt } = places;

/**
 * Writes the list of capabilities to a configuration space, and which of its bits can be written to another. Only what FLR resets says so,
 * and only what the way from D3hot to D0 resets has no No_Soft_Reset.
 */
export function putCapabilities(config: DataView, writable: DataView, method: ConfigValues['reset-method']): void {
  for (const [n, name] of NAMES.entries()) {
    const at = places[name];
    const { id, registers }: Capability = CAPABILITIES[name];
    const next = NAMES[n + 1];
    config.setUint8(at, id);
    config.setUint8(at + 1, next === undefined ? 0 : places[next]);
    for (const [offset, width, value, mask] of registers) {
      set(config, at + offset, width, value);
      set(writable, at + offset, width, mask);
    }
  }
  const { pm, exp } = places;
  if (method === 'pm') clear(config, pm + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
  if (method !== 'flr') clear(config, exp + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
}

/**
 * Writes the list of extended capabilities: a serial number, the same for all devices of a kind, since what QEMU migrates must be equal at
 * both ends (hw/pci/pcie.c: pcie_add_capability).
 */
export function putExtendedCapabilities(config: DataView, vendor: number, device: number): void {
  const VERSION = 1;
  config.setUint32(PCI_CFG_SPACE_SIZE, PCI_EXT_CAP_ID_DSN | (VERSION << 16), true);
  config.setUint32(PCI_CFG_SPACE_SIZE + 4, (0xff << 24) | device, true);
  config.setUint32(PCI_CFG_SPACE_SIZE + 8, ((vendor << 8) | 0xff) >>> 0, true);
}

function clear(view: DataView, at: number, bits: number): void {
  view.setUint32(at, view.getUint32(at, true) & ~bits, true);
}

function set(view: DataView, at: number, width: 16 | 32, value: number): void {
  if (width === 16) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
}
