import { join } from 'node:path';
import { compile, prepareBuild, type BuildPackages, type Modules } from './kbuild.ts';

/** Sets of modules that a guest may load. */
export type ModuleSet = 'stock' | 'reporting' | 'iommufd' | 'arm64';

const objects = (directory: string, names: string): string =>
  names
    .split(' ')
    .map((name) => `${directory}/${name}.o`)
    .join(' ');

const MTTY = 'samples/vfio-mdev/mtty.c';
const MTTY_KBUILD = 'mtty-y := samples/vfio-mdev/mtty.o';
const V2LOG = ['v2log.h', 'v2log-main.c', 'v2log-dma.c', 'v2log-migration.c'];
const V2LOG_KBUILD = 'v2log-y := v2log-main.o v2log-dma.o v2log-migration.o';
const VFIO = ['drivers/vfio/*.c', 'drivers/vfio/*.h'];
const MDEV = 'drivers/vfio/mdev/*.[ch]';
const MDEV_KBUILD = `mdev-y := ${objects('drivers/vfio/mdev', 'mdev_core mdev_sysfs mdev_driver')}`;
const IOVA_BITMAP = 'drivers/iommu/iommufd/iova_bitmap';

/** vfio.ko, with what drivers/vfio/Makefile adds by Debian's configuration. */
const VFIO_KBUILD = [
  'vfio-y := drivers/vfio/vfio_main.o',
  ...['GROUP', 'CONTAINER', 'VIRQFD', 'DEBUGFS'].map(
    (name) => `vfio-$(CONFIG_VFIO_${name}) += drivers/vfio/${name.toLowerCase()}.o`,
  ),
];

/**
 * What each set compiles. `stock`: the kernel's sample driver, and two of ours: one that speaks v1, as no driver of Linux does any
 * more, and one that logs DMA; and a driver for guests of the guest's kind.
 *
 * `reporting`: VFIO as it is where CONFIG_IOMMUFD_DRIVER is set, which Debian's kernels have not: then iova_bitmap.c is there, and
 * DMA_LOGGING_REPORT reports (include/linux/iova_bitmap.h, Linux 6.12). Its other modules are those of `stock`.
 *
 * `iommufd`: the same, and iommufd with VFIO's own device nodes, as where CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV are set. That
 * changes `struct vfio_device`, so all of VFIO is compiled. The kernel lacks the span iterator (lib/interval_tree.c) and has the
 * rest of that file, which iommufd.ko has a copy of, not exported.
 *
 * `arm64`: what `stock` has, and mediated devices, which Debian's kernels of aarch64 have not (CONFIG_VFIO_MDEV is selected by drivers of
 * x86 and s390 alone).
 */
const SETS: Readonly<Record<ModuleSet, Modules>> = {
  stock: {
    linux: [MTTY],
    ours: ['v1mem.c', 'bell.c', ...V2LOG],
    kbuild: ['obj-m := mtty.o v1mem.o bell.o v2log.o', MTTY_KBUILD, V2LOG_KBUILD],
  },
  reporting: {
    linux: [...VFIO, `${IOVA_BITMAP}.c`],
    ours: V2LOG,
    kbuild: [
      'ccflags-y := -DCONFIG_IOMMUFD_DRIVER=1',
      'obj-m := vfio.o v2log.o',
      ...VFIO_KBUILD,
      `vfio-y += ${IOVA_BITMAP}.o`,
      V2LOG_KBUILD,
    ],
  },
  iommufd: {
    linux: [...VFIO, MDEV, 'drivers/iommu/*.h', 'drivers/iommu/iommufd/*.[ch]', 'lib/interval_tree.c', MTTY],
    ours: ['v1mem.c', ...V2LOG],
    kbuild: [
      `ccflags-y := ${['IOMMUFD_MODULE', 'IOMMUFD_DRIVER', 'VFIO_DEVICE_CDEV', 'INTERVAL_TREE_SPAN_ITER'].map((name) => `-DCONFIG_${name}=1`).join(' ')}`,
      'CFLAGS_lib/interval_tree.o := -D__DISABLE_EXPORTS',
      'obj-m := iommufd.o vfio.o vfio_iommu_type1.o mdev.o mtty.o v1mem.o v2log.o',
      `iommufd-y := ${objects('drivers/iommu/iommufd', 'device fault hw_pagetable io_pagetable ioas main pages vfio_compat')}`,
      `iommufd-y += ${IOVA_BITMAP}.o lib/interval_tree.o`,
      ...VFIO_KBUILD,
      `vfio-y += ${objects('drivers/vfio', 'device_cdev iommufd')}`,
      'vfio_iommu_type1-y := drivers/vfio/vfio_iommu_type1.o',
      MDEV_KBUILD,
      MTTY_KBUILD,
      V2LOG_KBUILD,
    ],
  },
  arm64: {
    linux: [MDEV, MTTY],
    ours: ['v1mem.c', ...V2LOG],
    kbuild: ['obj-m := mdev.o mtty.o v1mem.o v2log.o', MDEV_KBUILD, MTTY_KBUILD, V2LOG_KBUILD],
  },
};

/** Compiled modules, as files by their names, that Debian does not have or whose place they take. */
export type Drivers = Readonly<Record<string, string>>;

/** Compiles those sets, each in a directory of its own. `tools` as in prepareBuild(). */
export async function buildDrivers<S extends ModuleSet>(
  sets: readonly S[],
  packages: BuildPackages,
  scratch: string,
  tools?: string,
): Promise<Readonly<Record<S, Drivers>>> {
  const patterns = new Set(sets.flatMap((set) => SETS[set].linux));
  const build = await prepareBuild(packages, [...patterns], scratch, tools);
  const built: Partial<Record<S, Drivers>> = {};
  for (const set of sets) built[set] = await compile(SETS[set], build, join(scratch, set));
  return built as Record<S, Drivers>;
}
