import type { Variant } from './variant-driver.ts';

/** What is known of a device whose driver does not migrate it. */
export interface Immobile {
  /** The driver that it is bound to. */
  readonly driver: string | undefined;
  /** As sysfs has it; `undefined` if it has none. */
  readonly modalias: string | undefined;
  readonly variant: Variant;
  /** The kernel's, as uname(2) has it. */
  readonly release: string;
}

export interface WhyNone {
  readonly reason: string;
  /** What may help, if anything does. */
  readonly remedy: string | null;
  /** The driver of Linux that migrates such devices, if this kernel has it or another version is known to. */
  readonly variantDriver: string | null;
}

/** A driver of Linux that migrates. */
interface Migrating {
  readonly driver: string;
  /** The first version whose driver does. */
  readonly since: string;
  /** Vendor and devices (drivers/vfio/pci, Linux 6.12: the drivers' tables of ids); `undefined` if there are too many. */
  readonly devices?: RegExp;
  /** What the driver asks for before it offers VFIO_DEVICE_FEATURE_MIGRATION. */
  readonly asks: string;
}

const MIGRATING: readonly Migrating[] = [
  {
    driver: 'mlx5_vfio_pci',
    since: '5.18',
    devices: /^pci:v000015B3d0000101E/,
    asks: 'its PF must allow it ("devlink port function set pci/PF/PORT migratable enable", Linux 6.2, before the VF is bound)',
  },
  {
    driver: 'hisi_acc_vfio_pci',
    since: '5.18',
    devices: /^pci:v000019E5d0000A2(51|56|59)/,
    asks: "it must be a VF whose PF is bound to the host's driver for it",
  },
  {
    driver: 'pds_vfio_pci',
    since: '6.6',
    devices: /^pci:v00001DD8d00001003/,
    asks: "it must be a VF whose PF is bound to pds_core, and the card's firmware must know migration",
  },
  {
    driver: 'qat_vfio_pci',
    since: '6.10',
    devices: /^pci:v00008086d0000494[135]/,
    asks: "it must be a VF whose PF is bound to the host's driver for it",
  },
  {
    driver: 'virtio_vfio_pci',
    since: '6.13',
    devices: /^pci:v00001AF4d0000104[12]/,
    asks: "it must be a VF whose PF is bound to virtio_pci and has the admin commands for a device's parts",
  },
  {
    driver: 'xe_vfio_pci',
    since: '6.19',
    asks: 'it must be a VF whose PF is bound to xe, and the firmware must know migration',
  },
];

/** Variant drivers that have other reasons to be (drivers/vfio/pci/nvgrace-gpu, Linux 6.12: no migration operations). */
const IMMOBILE: ReadonlySet<string> = new Set(['nvgrace_gpu_vfio_pci']);

const HOW = 'docs/kernel-devices.md says how to bind it';

/** Why a device cannot migrate whose driver has neither v2 nor a migration region. */
export function whyNone({ driver, modalias, variant, release }: Immobile): WhyNone {
  const bound = MIGRATING.find((each) => each.driver === moduleOf(driver));
  if (bound !== undefined) return ofMigrating(bound, release);
  const reason = `${driver ?? 'its driver'} has no migration`;
  const none = { reason, remedy: null, variantDriver: null };
  if (modalias?.startsWith('pci:') !== true) return none;
  const known = MIGRATING.find(({ devices }) => devices?.test(modalias));
  const own = variant.listed ? variant.module : undefined;
  if (own !== undefined && own !== moduleOf(driver) && !IMMOBILE.has(own)) return ofOther(own, reason, release);
  if (own === undefined && known !== undefined) return ofAbsent(known, reason, variant, release);
  if (!variant.listed) {
    const lists = `/lib/modules/${release}/modules.alias`;
    return { ...none, remedy: `cannot tell whether this kernel has a driver that does: ${lists} cannot be read` };
  }
  return { ...none, reason: `${reason}, and no driver of this kernel that has is for this device` };
}

/** The name of a driver's module: modprobe takes - and _ for the same, sysfs does not. */
function moduleOf(driver: string | undefined): string | undefined {
  return driver?.replaceAll('-', '_');
}

/** The driver migrates, but this device not, or not in this version. */
function ofMigrating({ driver, since, asks }: Migrating, release: string): WhyNone {
  if (!isAtLeast(release, since)) {
    return {
      reason: `${driver} migrates from Linux ${since} on, this is ${release}`,
      remedy: null,
      variantDriver: driver,
    };
  }
  return { reason: `${driver} does not offer migration for this device`, remedy: asks, variantDriver: driver };
}

/** This kernel has another driver for the device. */
function ofOther(own: string, reason: string, release: string): WhyNone {
  const since = MIGRATING.find(({ driver }) => driver === own)?.since;
  if (since !== undefined && !isAtLeast(release, since)) {
    const remedy = `the driver for this device is ${own}, which migrates from Linux ${since} on; this is ${release}`;
    return { reason, remedy, variantDriver: own };
  }
  const may = since === undefined ? 'may' : 'can';
  return {
    reason,
    remedy: `bind ${own}, this kernel's driver for this device, which ${may}; ${HOW}`,
    variantDriver: own,
  };
}

/** Linux has a driver, this kernel not, as far as its lists can be read. */
function ofAbsent({ driver, since }: Migrating, reason: string, variant: Variant, release: string): WhyNone {
  const remedy = isAtLeast(release, since)
    ? variant.listed
      ? `${driver} can, which this kernel was built without`
      : `bind ${driver}, which can, if this kernel has it; ${HOW}`
    : `${driver} can, from Linux ${since} on; this is ${release}`;
  return { reason, remedy, variantDriver: driver };
}

/** Whether a kernel is this version or a later one, by what it calls itself. */
function isAtLeast(release: string, version: string): boolean {
  const [major = 0, minor = 0] = release.split('.', 2).map((part) => Number.parseInt(part, 10));
  const [least = 0, leastMinor = 0] = version.split('.').map(Number);
  return major > least || (major === least && minor >= leastMinor);
}
