import {
  PCI_CAP_ID_EXP,
  PCI_CAP_ID_PM,
  PCI_CAPABILITY_LIST,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP_FLR,
  PCI_PM_CTRL,
  PCI_PM_CTRL_NO_SOFT_RESET,
} from '../../abi/pci.ts';

/** What sysfs has to say of a PCI device (Documentation/ABI/testing/sysfs-bus-pci) that a client looks at: the contents of its files by their names. */
export type SysfsFiles = Readonly<Record<string, string | Uint8Array>>;

/** Flags of a BAR in `resource` (linux/ioport.h: IORESOURCE_*). */
const MEMORY = 0x200;
const PREFETCH = 0x2000;
const SIZE_ALIGNED = 0x4_0000;
const MEMORY_64 = 0x10_0000;
/** BARs, the ROM, and the BARs of virtual functions: so many lines has `resource`. */
const RESOURCES = 13;

/** Where in the config space (linux/pci_regs.h). */
const AT = { vendor: 0x00, device: 0x02, revision: 0x08, bar0: 0x10, subsystemVendor: 0x2c, subsystemDevice: 0x2e };
/** Of a BAR: that it is of 64 bits, and prefetchable. */
const BAR_64 = 0x04;
const BAR_PREFETCH = 0x08;

/**
 * The files of a device with this config space, which has this address, such as `0000:90:00.0`, and BARs of so many bytes, by their numbers. Nobody
 * has given a BAR an address, as there is none; `irq` is 0, as no line of the host is its own; `config` is what it is before a VMM writes to it.
 */
export function sysfsFiles(address: string, config: Uint8Array, bars: Readonly<Record<number, number>>): SysfsFiles {
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  const word = (at: number): number => view.getUint16(at, true);
  const revisionAndClass = view.getUint32(AT.revision, true);
  const id = {
    vendor: word(AT.vendor),
    device: word(AT.device),
    subsystemVendor: word(AT.subsystemVendor),
    subsystemDevice: word(AT.subsystemDevice),
    class: revisionAndClass >>> 8,
  };
  const alias = modalias(id);
  return {
    vendor: `0x${hex(id.vendor, 4)}\n`,
    device: `0x${hex(id.device, 4)}\n`,
    subsystem_vendor: `0x${hex(id.subsystemVendor, 4)}\n`,
    subsystem_device: `0x${hex(id.subsystemDevice, 4)}\n`,
    class: `0x${hex(id.class, 6)}\n`,
    revision: `0x${hex(revisionAndClass & 0xff, 2)}\n`,
    resource: resources(view, bars),
    modalias: `${alias}\n`,
    uevent: uevent(address, id, alias),
    numa_node: '-1\n',
    irq: '0\n',
    driver_override: 'vfio-pci\n',
    reset_method: `${resetMethods(view).join(' ')}\n`,
    config,
  };
}

/** How the kernel can reset it, the best first (drivers/pci/pci.c of Linux 6.12: pci_init_reset_methods); alone on its bus, by that always. */
function resetMethods(config: DataView): string[] {
  const exp = capabilityAt(config, PCI_CAP_ID_EXP);
  const pm = capabilityAt(config, PCI_CAP_ID_PM);
  const hasFlr = (config.getUint32(exp + PCI_EXP_DEVCAP, true) & PCI_EXP_DEVCAP_FLR) !== 0;
  const isSoftReset = (config.getUint16(pm + PCI_PM_CTRL, true) & PCI_PM_CTRL_NO_SOFT_RESET) === 0;
  return [...(hasFlr ? ['flr'] : []), ...(isSoftReset ? ['pm'] : []), 'bus'];
}

/** Where a capability begins that the device has. */
function capabilityAt(config: DataView, id: number): number {
  let at = config.getUint8(PCI_CAPABILITY_LIST);
  while (config.getUint8(at) !== id) at = config.getUint8(at + 1);
  return at;
}

type Id = Readonly<Record<'vendor' | 'device' | 'subsystemVendor' | 'subsystemDevice' | 'class', number>>;

function resources(config: DataView, bars: Readonly<Record<number, number>>): string {
  const line = (end: number, flags: number): string => `0x${hex(0, 16)} 0x${hex(end, 16)} 0x${hex(flags, 16)}\n`;
  return Array.from({ length: RESOURCES }, (_, n) => {
    const size = bars[n];
    if (size === undefined) return line(0, 0);
    const bar = config.getUint32(AT.bar0 + 4 * n, true);
    const is64 = (bar & BAR_64) === 0 ? 0 : MEMORY_64;
    const prefetch = (bar & BAR_PREFETCH) === 0 ? 0 : PREFETCH;
    return line(size - 1, MEMORY | SIZE_ALIGNED | is64 | prefetch);
  }).join('');
}

/** As udev finds a driver by it (drivers/pci/pci-sysfs.c: modalias). */
function modalias(id: Id): string {
  const [base, sub, programming] = [id.class >> 16, (id.class >> 8) & 0xff, id.class & 0xff].map((each) =>
    upper(each, 2),
  );
  const device = `v${upper(id.vendor, 8)}d${upper(id.device, 8)}`;
  const subsystem = `sv${upper(id.subsystemVendor, 8)}sd${upper(id.subsystemDevice, 8)}`;
  return `pci:${device}${subsystem}bc${base}sc${sub}i${programming}`;
}

function uevent(address: string, id: Id, alias: string): string {
  return [
    'DRIVER=vfio-pci',
    `PCI_CLASS=${upper(id.class, 4)}`,
    `PCI_ID=${upper(id.vendor, 4)}:${upper(id.device, 4)}`,
    `PCI_SUBSYS_ID=${upper(id.subsystemVendor, 4)}:${upper(id.subsystemDevice, 4)}`,
    `PCI_SLOT_NAME=${address}`,
    `MODALIAS=${alias}\n`,
  ].join('\n');
}

/** As file names and identities are matched by: in capitals. */
function upper(value: number, digits: number): string {
  return hex(value, digits).toUpperCase();
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
