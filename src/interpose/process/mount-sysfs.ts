import { closeSync, existsSync, mkdirSync, openSync, readdirSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ShimError } from '../../error.ts';
import { bindMount, mountEmpty, privateMounts } from '../../sys/mount.ts';
import { DRIVER, driverPath, groupsPath } from './sysfs.ts';

/** Where the kernel lists the devices of the bus, the drivers of the bus, modules and groups. */
const BUS = '/sys/bus/pci/devices';
const DRIVERS = '/sys/bus/pci/drivers';
const MODULES = '/sys/module';
const GROUPS = '/sys/kernel/iommu_groups';
/** The modules that programs look for before they use VFIO (DPDK 22.11: rte_vfio_enable, pci_vfio_is_enabled). */
const VFIO_MODULES = ['vfio', 'vfio_iommu_type1', 'vfio_pci'];

/**
 * Shows the directory to this process, and to what it starts from now on, in the place of the bus's devices, and beside what the kernel has
 * of each: the driver vfio-pci, the modules of VFIO, and the devices' groups. Throws `ERR_SYSCALL` if it may not.
 */
export function mountSysfs(path: string): void {
  try {
    privateMounts();
    bindMount(path, BUS);
    const groups = readdirSync(join(BUS, groupsPath));
    add(DRIVERS, { [DRIVER]: join(BUS, driverPath) });
    add(MODULES, Object.fromEntries(VFIO_MODULES.map((name) => [name, undefined])));
    add(GROUPS, Object.fromEntries(groups.map((name) => [name, join(BUS, groupsPath, name)])));
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    const remedy = error.errno === 'EPERM' ? '; it takes CAP_SYS_ADMIN, as `unshare -rm` gives it' : '';
    throw new ShimError(error.code, `--mount-sysfs: ${error.message}${remedy}`, {
      cause: error,
      ...(error.errno !== undefined && { errno: error.errno }),
    });
  }
}

/**
 * Adds links, and empty directories where there is no target, to a directory of sysfs, in which nothing can be made: what it has is shown
 * elsewhere, and links lead there. What it has of the same name stays. A kernel that has no such directory shows none.
 */
function add(directory: string, links: Readonly<Record<string, string | undefined>>): void {
  if (!existsSync(directory)) return;
  const had = readdirSync(directory);
  const missing = Object.entries(links).filter(([name]) => !had.includes(name));
  if (missing.length === 0) return;
  const kernels = openSync(directory, 'r');
  try {
    mountEmpty(directory);
    const elsewhere = join(directory, '.kernel');
    mkdirSync(elsewhere);
    bindMount(`/proc/self/fd/${kernels}`, elsewhere);
    for (const name of had) symlinkSync(join(basename(elsewhere), name), join(directory, name));
    for (const [name, target] of missing) {
      if (target === undefined) mkdirSync(join(directory, name));
      else symlinkSync(target, join(directory, name));
    }
  } finally {
    closeSync(kernels);
  }
}
