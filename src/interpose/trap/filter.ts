import type { Arch } from '../../abi/arch.ts';
import { O_ACCMODE, O_RDWR } from '../../abi/fcntl.ts';
import { IOMMU_DESTROY } from '../../abi/iommufd.ts';
import { KVM_SET_DEVICE_ATTR } from '../../abi/kvm.ts';
import { SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, seccomp_data } from '../../abi/seccomp.ts';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_MIG_GET_PRECOPY_INFO,
} from '../../abi/vfio.ts';
import { assemble, type Step } from './bpf.ts';
import type { FdWindow } from '../run/plan.ts';
import { BAR0_HIGH, CONFIG_HIGH, REGIONS_HIGH, WINDOW_HIGH, WINDOW_MASK } from '../run/window.ts';

/** The VFIO ioctls, from `VFIO_GET_API_VERSION` (0x3b64) to the highest that has been given out; those of iommufd come behind. */
const VFIO_FIRST = VFIO_GET_API_VERSION;
const VFIO_LAST = VFIO_FIRST + 25;
/** The ioctls of iommufd begin with this; Linux 7.1 has given out 0x14 more. */
const IOMMUFD_LAST = IOMMU_DESTROY + 0x14;
if (VFIO_DEVICE_FEATURE > VFIO_LAST || VFIO_MIG_GET_PRECOPY_INFO > VFIO_LAST) throw new RangeError('VFIO ioctl range');

const { fields } = seccomp_data;
const NR = fields.nr[1];
const ARCH_AT = fields.arch[1];
const low = (argument: keyof typeof fields): number => fields[argument][1];
const high = (argument: keyof typeof fields): number => fields[argument][1] + 4;

/** From so many bytes on, where a pread of BAR0 ends is more than 32 bits can tell, and is asked its supervisor. */
const LARGE_BAR = 2 ** 31;

/** What a filter has to let through to the supervisor. */
interface Traps {
  readonly ioctls: Step[];
  /** Opening files for reading and writing, and what is done with the regions of the devices that there are so, but what these allow; or not. */
  readonly regions: Untrapped | undefined;
  /** Looking at files. */
  readonly looks: boolean;
  /** Opening directories to be listed. */
  readonly lists: boolean;
  readonly dataFds: FdWindow | undefined;
}

/** What a target does with the file of an emulated device by itself. */
export interface Untrapped {
  /** Bytes of the smallest BAR0 that it has. */
  readonly bar: number;
  /** Bytes of the smallest config space that it has; 0 if reads of it are to be seen. */
  readonly config: number;
}

/**
 * The filter of a target with emulated devices. It traps the VFIO ioctls, the one by which KVM is told of files, opening files for reading
 * and writing, since the emulated nodes under /dev exist nowhere else, and what is done at offsets that no other file has: mapping a device's regions,
 * moving the position there, and reading and writing, but within BAR0, and to read within config space. All the
 * rest goes straight to the kernel, mapped memory included. If v2 is presented, reads, writes and
 * duplications of descriptors in the window of the stand-in data fds are trapped too, and what a data fd has no answer for but an
 * error (positions, splice and its kind); closing them is the kernel's business. With `looks`, so are calls that look at a file, which a
 * program makes while it is loaded: it waits for its supervisor then; with `lists`, directories that are opened to be listed.
 */
export function emulationFilter(
  arch: Arch,
  regions: Untrapped,
  dataFds?: FdWindow,
  { looks = false, lists = false }: { readonly looks?: boolean | undefined; readonly lists?: boolean | undefined } = {},
): Uint8Array {
  return filter(arch, {
    ioctls: [
      { ifEqual: KVM_SET_DEVICE_ATTR, then: 'vfio' },
      { unlessBetween: [VFIO_FIRST, IOMMUFD_LAST], then: 'other ioctl' },
      { label: 'vfio' },
    ],
    regions,
    looks,
    lists,
    dataFds,
  });
}

/**
 * The filter of a target whose devices are the kernel's. It traps only what is needed: what a device is and how it is reset,
 * and accesses at offsets in the added regions' window; with `dirtyPages`, which container a group is put into, and a container's
 * log of dirty pages; if v2 is presented, the features and the data fds too. So whatever becomes of the supervisor, DMA mappings, interrupts and the device's own regions go on.
 */
export function bridgingFilter(arch: Arch, dirtyPages: boolean, dataFds?: FdWindow): Uint8Array {
  const trapped = new Set([
    VFIO_GROUP_GET_DEVICE_FD,
    VFIO_DEVICE_GET_INFO,
    VFIO_DEVICE_GET_REGION_INFO,
    VFIO_DEVICE_RESET,
    ...(dirtyPages ? [VFIO_GROUP_SET_CONTAINER, VFIO_IOMMU_DIRTY_PAGES] : []),
    ...(dataFds === undefined ? [] : [VFIO_DEVICE_FEATURE, VFIO_MIG_GET_PRECOPY_INFO]),
  ]);
  const ioctls: Step[] = [
    { unlessBetween: [VFIO_FIRST, VFIO_LAST], then: 'other ioctl' },
    ...Array.from(trapped, (command) => ({ ifEqual: command, then: 'vfio' })),
    { ret: SECCOMP_RET_ALLOW },
    { label: 'vfio' },
  ];
  return filter(arch, { ioctls, regions: undefined, looks: false, lists: false, dataFds });
}

/** The calls that look at a file: VMMs want to know whether a node is the character device that sysfs names. */
export function lookNumbers({ syscalls }: Arch): number[] {
  const { fstat, newfstatat, statx, faccessat, faccessat2 } = syscalls;
  const legacy = (['stat', 'lstat', 'access'] as const).flatMap((name) =>
    name in syscalls ? Number(syscalls[name]) : [],
  );
  return [fstat, newfstatat, statx, faccessat, faccessat2, ...legacy];
}

function filter(arch: Arch, { ioctls, regions, looks, lists, dataFds }: Traps): Uint8Array {
  const { syscalls, auditArch } = arch;
  const trapsOpens = regions !== undefined;
  const inWindow = (name: string, argument: keyof typeof fields, otherwise: Step[]): Step[] => [
    { label: name },
    { load: high(argument) },
    { and: WINDOW_MASK },
    { unlessEqual: WINDOW_HIGH, then: `${name}: elsewhere` },
    { ret: SECCOMP_RET_USER_NOTIF },
    { label: `${name}: elsewhere` },
    ...otherwise,
    { ret: SECCOMP_RET_ALLOW },
  ];
  const listed = (name: string, flags: keyof typeof fields): Step[] => [
    { load: low(flags) },
    { and: arch.openFlags.O_DIRECTORY },
    { unlessEqual: arch.openFlags.O_DIRECTORY, then: `${name}: no directory` },
    { ret: SECCOMP_RET_USER_NOTIF },
    { label: `${name}: no directory` },
  ];
  const opens = (name: string, flags: keyof typeof fields): Step[] => [
    { label: name },
    { load: low(flags) },
    { and: O_ACCMODE },
    { unlessEqual: O_RDWR, then: `${name}: one way` },
    { ret: SECCOMP_RET_USER_NOTIF },
    { label: `${name}: one way` },
    ...(lists ? listed(name, flags) : []),
    { ret: SECCOMP_RET_ALLOW },
  ];
  const isDataFd = (name: string, argument: 'args0' | 'args1' | 'args2'): Step[] =>
    dataFds === undefined
      ? []
      : [
          { load: low(argument) },
          { unlessBetween: [dataFds.first, dataFds.last], then: `${name}: other fd` },
          { ret: SECCOMP_RET_USER_NOTIF },
          { label: `${name}: other fd` },
        ];
  /** For a call that is not trapped elsewhere but on a data fd. */
  const orDataFd = (name: string): Step[] => [...isDataFd(name, 'args0'), { ret: SECCOMP_RET_ALLOW }];
  const inRegions = (name: string, offset: 'args1' | 'args3' | 'args5', otherwise: readonly Step[]): Step[] => [
    { label: name },
    { load: high(offset) },
    { unlessBetween: REGIONS_HIGH, then: `${name}: no region` },
    { ret: SECCOMP_RET_USER_NOTIF },
    { label: `${name}: no region` },
    ...otherwise,
  ];
  /** pread64 or pwrite64 that ends within so many bytes of a region, which are less than 2 GiB, is as one of no region. */
  const within = (name: string, size: number): Step[] => [
    { label: name },
    { load: high('args2') },
    { unlessEqual: 0, then: `${name}: not within` },
    { load: low('args2') },
    { ifAbove: size, then: `${name}: not within` },
    { keep: true },
    { load: low('args3') },
    { ifAbove: size, then: `${name}: not within` },
    { addKept: true },
    { unlessAbove: size, then: 'at an offset: no region' },
    { label: `${name}: not within` },
    { ret: SECCOMP_RET_USER_NOTIF },
  ];
  const accesses = ({ bar, config }: Untrapped): Step[] => [
    { label: 'pread' },
    ...(config > 0 ? [{ load: high('args3') }, { ifEqual: CONFIG_HIGH, then: 'config space' }] : []),
    { label: 'pwrite' },
    ...(bar < LARGE_BAR ? [{ load: high('args3') }, { ifEqual: BAR0_HIGH, then: 'BAR0' }] : []),
    { label: 'at an offset' },
    { load: high('args3') },
    { unlessBetween: REGIONS_HIGH, then: 'at an offset: no region' },
    { ret: SECCOMP_RET_USER_NOTIF },
    ...(config > 0 ? within('config space', config) : []),
    ...(bar < LARGE_BAR ? within('BAR0', bar) : []),
    { label: 'at an offset: no region' },
    ...orDataFd('at an offset'),
  ];
  const dataFd = (name: string, second?: 'args1' | 'args2'): Step[] => [
    { label: name },
    ...isDataFd(name, 'args0'),
    ...(second === undefined ? [] : isDataFd(`${name}, second`, second)),
    { ret: SECCOMP_RET_ALLOW },
  ];
  const { read, write, readv, writev, preadv, pwritev, preadv2, pwritev2, lseek, dup, dup3, fcntl } = syscalls;
  const legacyDup = 'dup2' in syscalls ? [Number(syscalls.dup2)] : [];
  const onDataFd = [
    read,
    write,
    readv,
    writev,
    ...(trapsOpens ? [] : [preadv, preadv2, pwritev, pwritev2, lseek]), // else they are looked at already
    dup,
    dup3,
    fcntl,
    ...legacyDup,
  ];
  const onDataFds: Step[] =
    dataFds === undefined
      ? []
      : [
          ...onDataFd.map((nr) => ({ ifEqual: nr, then: 'data fd' })),
          { ifEqual: syscalls.sendfile, then: 'sendfile' },
          { ifEqual: syscalls.splice, then: 'splice' },
          { ifEqual: syscalls.copy_file_range, then: 'splice' },
        ];
  const hasOpen = trapsOpens && 'open' in syscalls;
  const openCalls: Step[] = [
    ...(trapsOpens ? [{ ifEqual: syscalls.openat, then: 'openat' }] : []),
    ...(hasOpen ? [{ ifEqual: Number(syscalls.open), then: 'open' }] : []),
    ...(trapsOpens ? [{ ifEqual: syscalls.openat2, then: 'openat2' }] : []),
  ];
  return assemble([
    { load: ARCH_AT },
    { unlessEqual: auditArch, then: 'allow' },
    { load: NR },
    { ifEqual: syscalls.ioctl, then: 'ioctl' },
    { ifEqual: syscalls.pread64, then: trapsOpens ? 'pread' : 'offset' },
    { ifEqual: syscalls.pwrite64, then: trapsOpens ? 'pwrite' : 'offset' },
    ...(trapsOpens
      ? [
          ...[preadv, preadv2, pwritev, pwritev2].map((nr) => ({ ifEqual: nr, then: 'at an offset' })),
          { ifEqual: lseek, then: 'lseek' },
        ]
      : []),
    { ifEqual: syscalls.mmap, then: trapsOpens ? 'mmap of a region' : 'mmap' },
    ...openCalls,
    ...(looks ? lookNumbers(arch).map((nr) => ({ ifEqual: nr, then: 'look' })) : []),
    ...onDataFds,
    { label: 'allow' },
    { ret: SECCOMP_RET_ALLOW },
    { label: 'ioctl' },
    { load: low('args1') },
    ...ioctls,
    { label: 'openat2' },
    { label: 'look' },
    { ret: SECCOMP_RET_USER_NOTIF },
    { label: 'other ioctl' },
    { ret: SECCOMP_RET_ALLOW },
    ...(trapsOpens
      ? [
          ...accesses(regions),
          ...inRegions('lseek', 'args1', orDataFd('lseek')),
          ...inRegions('mmap of a region', 'args5', [{ ret: SECCOMP_RET_ALLOW }]),
          ...opens('openat', 'args2'),
        ]
      : [...inWindow('offset', 'args3', isDataFd('offset', 'args0')), ...inWindow('mmap', 'args5', [])]),
    ...(hasOpen ? opens('open', 'args1') : []),
    ...(dataFds === undefined
      ? []
      : [...dataFd('data fd'), ...dataFd('sendfile', 'args1'), ...dataFd('splice', 'args2')]),
  ]);
}
