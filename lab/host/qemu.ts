import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ModuleSet } from '../image/drivers.ts';
import { prepareImage, prepareNewest, type Image } from '../image/image.ts';
import { Unavailable } from '../unavailable.ts';
import { prepareLibvirt, type LibvirtSuite, type LibvirtSystem } from './libvirt-systems.ts';

const FETCH = fileURLToPath(new URL('../../scripts/qemu.mjs', import.meta.url));

/** A QEMU of Debian's, unpacked. */
export interface UnpackedQemu {
  readonly command: string;
  /** Where its packages are unpacked. */
  readonly root: string;
}

/** Finds a suite's QEMU in the cache, or fetches it. The guest runs under that of trixie, 10.0, which is also in the guest. */
export function findQemu(suite: 'trixie' | 'sid'): UnpackedQemu {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FETCH, suite], { encoding: 'utf8' });
  process.stderr.write(stderr);
  if (status !== 0) throw new Unavailable(stderr.trim().split('\n').at(-1) ?? `the QEMU of ${suite} cannot be fetched`);
  const command = stdout.trim();
  return { command, root: join(dirname(command), 'root') };
}

/** The kinds of guest, in the order in which they are booted. */
export const GUEST_KINDS = [
  'stock',
  'reporting',
  'iommufd',
  'newest-qemu',
  'newest-kernel',
  'libvirt',
  'libvirt-crossing',
  'libvirt-newest',
] as const;
export type GuestKind = (typeof GUEST_KINDS)[number];

/** What makes a kind of guest. */
interface Kind {
  /** Default: Linux 6.12. */
  readonly kernel?: 'newest';
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
 * of hardware as VFIO sees it (QEMU's `edu`), are behind an IOMMU. `iommufd` has /dev/iommu and a node for each device.
 */
const KINDS: Readonly<Record<GuestKind, Kind>> = {
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
};

/** A guest as it is booted. */
export interface Guest {
  readonly kind: GuestKind;
  readonly image: Image;
  /** The QEMU that it runs under. */
  readonly qemu: UnpackedQemu;
  readonly newestQemu?: UnpackedQemu;
  /** The systems that it shares. */
  readonly libvirt: readonly LibvirtSystem[];
}

/** Finds or makes what guests need; throws `Unavailable` if that cannot be had. */
export class Guests {
  readonly #qemu: UnpackedQemu;
  readonly #image: Image;
  readonly #say: (text: string) => void;

  private constructor(qemu: UnpackedQemu, image: Image, say: (text: string) => void) {
    this.#qemu = qemu;
    this.#image = image;
    this.#say = say;
  }

  static async prepare(say: (text: string) => void): Promise<Guests> {
    if (process.arch !== 'x64' || process.platform !== 'linux') throw new Unavailable('the lab needs Linux on x86-64');
    const qemu = findQemu('trixie');
    return new Guests(qemu, await prepareImage(qemu.root, say), say);
  }

  async guest(kind: GuestKind): Promise<Guest> {
    const { kernel, newestQemu, libvirt: suites = [] } = KINDS[kind];
    const image = kernel === undefined ? this.#image : await prepareNewest(this.#image, this.#qemu.root, this.#say);
    const { linux, qemu72, qemu10, node } = image.versions;
    this.#say(`the guest ${kind}: Linux ${linux}, QEMU ${qemu72} and ${qemu10}, Node ${node}`);
    const libvirt: LibvirtSystem[] = [];
    for (const suite of suites) libvirt.push(await prepareLibvirt(suite, this.#say));
    for (const { suite, versions } of libvirt)
      this.#say(`${suite}: libvirt ${versions.libvirt}, QEMU ${versions.qemu}`);
    return { kind, image, qemu: this.#qemu, libvirt, ...(newestQemu && { newestQemu: findQemu('sid') }) };
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

/** An oops ends the guest, since nothing it says afterwards counts; slowness is no lockup. */
const KERNEL = 'console=ttyS0 quiet panic=-1 oops=panic nowatchdog nokaslr mitigations=off tsc=unstable';
const MACHINE = `-accel tcg,thread=multi,tb-size=512 -machine q35 -cpu max -smp 2 -m 2048
  -nodefaults -no-user-config -display none -no-reboot`;

/** The command line of a guest. KVM is not used, so that it is the same on every machine. */
export function guestCommand({ kind, image, qemu, newestQemu, libvirt }: Guest, options: GuestOptions): string[] {
  const { modules, append = '', devices = [] } = KINDS[kind];
  const words = [KERNEL, `lab.modules=${modules}`, append, newestQemu && 'lab.newest-qemu', options.append];
  const serial = options.serial === 'stdio' ? 'stdio,id=serial,signal=off' : `file,id=serial,path=${options.serial}`;
  const share = (tag: string, path: string, flags: string): string[] => [
    '-fsdev',
    `local,id=${tag},path=${path},security_model=none${flags}`,
    '-device',
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ];
  return [
    qemu.command,
    ...MACHINE.split(/\s+/),
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
    ...(newestQemu === undefined ? [] : share('newest-qemu', dirname(newestQemu.root), ',readonly=on')),
  ];
}
