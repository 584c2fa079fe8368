import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Image } from '../image/image.ts';
import { Unavailable } from '../unavailable.ts';
import { prepareLibvirt, type LibvirtSuite, type LibvirtSystem } from './libvirt-systems.ts';

const FETCH = fileURLToPath(new URL('../../scripts/qemu.mjs', import.meta.url));

/** QEMU 10.0, which the guest runs under and which is also in the guest. */
export interface Qemu10 {
  readonly command: string;
  /** Where its packages are unpacked. */
  readonly root: string;
}

/** Finds it in the cache, or fetches it. */
export function findQemu10(): Qemu10 {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FETCH, 'trixie'], { encoding: 'utf8' });
  process.stderr.write(stderr);
  if (status !== 0) throw new Unavailable(stderr.trim().split('\n').at(-1) ?? 'QEMU 10.0 cannot be fetched');
  const command = stdout.trim();
  return { command, root: join(dirname(command), 'root') };
}

/**
 * What a guest has: a stock kernel, in which DMA_LOGGING_REPORT is refused; or one in which it reports, and whose devices, among them
 * one of hardware as VFIO sees it (QEMU's `edu`), are behind an IOMMU; or a stock one that shares systems with libvirt.
 */
export const GUEST_KINDS = ['stock', 'reporting', 'libvirt', 'libvirt-newest'] as const;
export type GuestKind = (typeof GUEST_KINDS)[number];

interface Kind {
  readonly append: string;
  readonly devices: readonly string[];
  /** Debian's releases whose libvirt it has. */
  readonly libvirt?: readonly LibvirtSuite[];
}

const KINDS: Readonly<Record<GuestKind, Kind>> = {
  stock: { append: '', devices: [] },
  libvirt: { append: '', devices: [], libvirt: ['bookworm', 'trixie'] },
  'libvirt-newest': { append: '', devices: [], libvirt: ['bookworm', 'sid'] },
  reporting: {
    append: 'lab.reporting intel_iommu=on',
    devices: ['-device', 'intel-iommu', '-device', 'edu'],
  },
};

/** The systems that a kind of guest shares; throws `Unavailable` if they cannot be had. */
export async function libvirtOf(kind: GuestKind, say: (text: string) => void): Promise<LibvirtSystem[]> {
  const systems: LibvirtSystem[] = [];
  for (const suite of KINDS[kind].libvirt ?? []) systems.push(await prepareLibvirt(suite, say));
  for (const { suite, versions } of systems) say(`${suite}: libvirt ${versions.libvirt}, QEMU ${versions.qemu}`);
  return systems;
}

/** Shares and console of a guest. */
export interface GuestOptions {
  readonly kind: GuestKind;
  readonly project: string;
  readonly results: string;
  readonly libvirt: readonly LibvirtSystem[];
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
export function guestCommand(qemu: Qemu10, image: Image, options: GuestOptions): string[] {
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
    [KERNEL, KINDS[options.kind].append, options.append ?? ''].join(' '),
    ...KINDS[options.kind].devices,
    '-drive',
    `if=none,id=root,file=${image.root},format=raw,readonly=on`,
    '-device',
    'virtio-blk-pci,drive=root',
    '-device',
    'virtio-rng-pci',
    ...share('project', options.project, ',readonly=on'),
    ...share('results', options.results, ''),
    ...options.libvirt.flatMap(({ suite, root }) => share(`libvirt-${suite}`, root, ',readonly=on')),
  ];
}
