import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ModuleSet } from '../image/drivers.ts';
import { prepareArm64, prepareImage, prepareNewest, type Image } from '../image/image.ts';
import type { Arm64Flavour } from '../image/packages.ts';
import { Unavailable } from '../unavailable.ts';
import { prepareLibvirt, type LibvirtSuite, type LibvirtSystem } from './libvirt-systems.ts';
import { MACHINES, type Emulated } from './machines.ts';
import { arm64NodeModules } from './node-modules.ts';

const FETCH = fileURLToPath(new URL('../../scripts/qemu.mjs', import.meta.url));

/** A QEMU of Debian's, unpacked. */
export interface UnpackedQemu {
  readonly command: string;
  /** Where its packages are unpacked. */
  readonly root: string;
}

/** Finds a suite's QEMU in the cache, or fetches it. The guest runs under that of trixie, 10.0, which is also in the guest. */
export function findQemu(suite: 'bookworm' | 'trixie' | 'sid', emulated: Emulated = 'x86_64'): UnpackedQemu {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FETCH, suite, emulated], { encoding: 'utf8' });
  process.stderr.write(stderr);
  if (status !== 0) throw new Unavailable(stderr.trim().split('\n').at(-1) ?? `the QEMU of ${suite} cannot be fetched`);
  const command = stdout.trim();
  return { command, root: join(dirname(command), 'root') };
}

/** The kinds of guest, in the order in which they are booted. `namespaces` and `linux` are none: see namespaces.ts. */
export const GUEST_KINDS = [
  'stock',
  'reporting',
  'iommufd',
  'newest-qemu',
  'newest-kernel',
  'libvirt',
  'libvirt-crossing',
  'libvirt-newest',
  'namespaces',
  'linux',
  'arm64',
  'arm64-16k',
] as const;
export type GuestKind = (typeof GUEST_KINDS)[number];
export type BootedKind = Exclude<GuestKind, 'namespaces' | 'linux'>;

/** What makes a kind of guest. */
interface Kind {
  /** Default: Linux 6.12 of x86-64. */
  readonly kernel?: 'newest' | Arm64Flavour;
  /** Which modules it loads, of those that are made for its kernel. */
  readonly modules: ModuleSet;
  /** It has the newest QEMU besides 7.2 and 10.0. */
  readonly newestQemu?: true;
  /** Debian's releases whose libvirt it has. */
  readonly libvirt?: readonly LibvirtSuite[];
  /** More for the kernel's command line. */
  readonly append?: string;
  readonly devices?: readonly string[];
}

/**
 * `stock` is a kernel as Debian has it, in which DMA_LOGGING_REPORT is refused. In `reporting` it reports, and devices, among them one
 * of hardware as VFIO sees it (QEMU's `edu`), are behind an IOMMU. `iommufd` has /dev/iommu and a node for each device. `arm64` has pages of 4 KiB, `arm64-16k` of 16.
 */
const KINDS: Readonly<Record<BootedKind, Kind>> = {
  stock: { modules: 'stock' },
  reporting: {
    modules: 'reporting',
    append: 'intel_iommu=on',
    devices: ['-device', 'intel-iommu', '-device', 'edu'],
  },
  iommufd: { modules: 'iommufd' },
  'newest-qemu': { modules: 'iommufd', newestQemu: true },
  'newest-kernel': { kernel: 'newest', modules: 'stock', newestQemu: true },
  libvirt: { modules: 'stock', libvirt: ['bookworm'] },
  'libvirt-crossing': { modules: 'stock', libvirt: ['bookworm', 'trixie'] },
  'libvirt-newest': { modules: 'stock', libvirt: ['bookworm', 'sid'] },
  arm64: { kernel: 'arm64', modules: 'arm64' },
  'arm64-16k': { kernel: 'arm64-16k', modules: 'arm64' },
};

/** A guest as it is booted. */
export interface Guest {
  readonly kind: BootedKind;
  readonly image: Image;
  readonly emulated: Emulated;
  /** The QEMU that it runs under. */
  readonly qemu: UnpackedQemu;
  /** What it has of npm, if that is not this machine's. */
  readonly nodeModules?: string;
  readonly newestQemu?: UnpackedQemu;
  /** The systems that it shares. */
  readonly libvirt: readonly LibvirtSystem[];
}

/** Finds or makes what guests need; throws `Unavailable` if that cannot be had. */
export class Guests {
  readonly #say: (text: string) => void;

  constructor(say: (text: string) => void) {
    if (process.arch !== 'x64' || process.platform !== 'linux') throw new Unavailable('the lab needs Linux on x86-64');
    this.#say = say;
  }

  async guest(kind: BootedKind): Promise<Guest> {
    const { kernel, newestQemu, libvirt: suites = [] } = KINDS[kind];
    if (kernel === 'arm64' || kernel === 'arm64-16k') return this.#arm64(kind, kernel);
    const qemu = findQemu('trixie');
    const stock = await prepareImage(qemu.root, this.#say);
    const image = kernel === undefined ? stock : await prepareNewest(stock, qemu.root, this.#say);
    this.#announce(kind, image);
    const libvirt = await this.libvirt(suites);
    return { kind, image, emulated: 'x86_64', qemu, libvirt, ...(newestQemu && { newestQemu: findQemu('sid') }) };
  }

  /** What VMs of this machine boot: Debian's Linux 6.12, in a directory, and the QEMUs for them, by the variables that name these. */
  async linux(): Promise<{ readonly directory: string; readonly qemus: Readonly<Record<string, string>> }> {
    const trixie = findQemu('trixie');
    const image = await prepareImage(trixie.root, this.#say);
    const qemus = {
      VFIO_SHIM_QEMU: findQemu('bookworm').command,
      VFIO_SHIM_QEMU10: trixie.command,
      VFIO_SHIM_QEMU_NEWEST: findQemu('sid').command,
    };
    return { directory: dirname(image.kernel), qemus };
  }

  /** What libvirt's hosts are made of. */
  async libvirt(suites: readonly LibvirtSuite[]): Promise<LibvirtSystem[]> {
    const systems: LibvirtSystem[] = [];
    for (const suite of suites) systems.push(await prepareLibvirt(suite, this.#say));
    for (const { suite, versions } of systems)
      this.#say(`${suite}: libvirt ${versions.libvirt}, QEMU ${versions.qemu}`);
    return systems;
  }

  async #arm64(kind: BootedKind, flavour: Arm64Flavour): Promise<Guest> {
    const image = await prepareArm64(flavour, this.#say);
    this.#announce(kind, image);
    const nodeModules = await arm64NodeModules(this.#say);
    return { kind, image, emulated: 'aarch64', qemu: findQemu('trixie', 'aarch64'), libvirt: [], nodeModules };
  }

  #announce(kind: BootedKind, { versions: { linux, qemu72, qemu10, node } }: Image): void {
    this.#say(`the guest ${kind}: Linux ${linux}, QEMU ${qemu72} and ${qemu10}, Node ${node}`);
  }
}

/** Shares and console of a guest. */
export interface GuestOptions {
  readonly project: string;
  readonly results: string;
  /** A file, or `stdio`. */
  readonly serial: string;
  /** More for the kernel's command line. */
  readonly append?: string;
}

/** The command line of a guest. */
export function guestCommand(guest: Guest, options: GuestOptions): string[] {
  const { kind, image, emulated, qemu, newestQemu, libvirt, nodeModules } = guest;
  const { modules, append = '', devices = [] } = KINDS[kind];
  const machine = MACHINES[emulated];
  const shared = [newestQemu && 'lab.newest-qemu', nodeModules && 'lab.node-modules'];
  const words = [machine.kernel, `lab.modules=${modules}`, append, ...shared, options.append];
  const serial = options.serial === 'stdio' ? 'stdio,id=serial,signal=off' : `file,id=serial,path=${options.serial}`;
  const share = (tag: string, path: string, flags: string): string[] => [
    '-fsdev',
    `local,id=${tag},path=${path},security_model=none${flags}`,
    '-device',
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ];
  return [
    qemu.command,
    ...machine.options.split(' '),
    '-chardev',
    serial,
    '-serial',
    'chardev:serial',
    '-kernel',
    image.kernel,
    '-initrd',
    image.initramfs,
    '-append',
    words.filter(Boolean).join(' '),
    ...devices,
    '-drive',
    `if=none,id=root,file=${image.root},format=raw,readonly=on`,
    '-device',
    'virtio-blk-pci,drive=root',
    '-device',
    'virtio-rng-pci',
    ...share('project', options.project, ',readonly=on'),
    ...share('results', options.results, ''),
    ...libvirt.flatMap(({ suite, root }) => share(`libvirt-${suite}`, root, ',readonly=on')),
    ...(nodeModules === undefined ? [] : share('node-modules', nodeModules, ',readonly=on')),
    ...(newestQemu === undefined ? [] : share('newest-qemu', dirname(newestQemu.root), ',readonly=on')),
  ];
}
