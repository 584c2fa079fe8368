import type { Arch } from '../../src/abi/arch.ts';
import type { FdWindow } from '../../src/interpose/run/plan.ts';
import type { SeccompData } from './bpf-machine.ts';

/** linux/kvm.h. */
const KVM_SET_DEVICE_ATTR = 0x4018_aee1;
/** Those of linux/vfio.h and linux/iommufd.h. */
const VFIO_IOCTLS = [0x3b64, 0x3b94] as const;

const TiB = 2n ** 40n;
const CONFIG = 7n * TiB;
const BAR0 = 9n * TiB;

/** What the filter is for, in words of this language: true for a system call that a supervisor has to see. */
export function isTrapped(
  { nr, arch: audit, args }: SeccompData,
  arch: Arch,
  regions: { readonly bar: number; readonly config: number },
  dataFds?: FdWindow,
): boolean {
  const [a0 = 0n, a1 = 0n, a2 = 0n, a3 = 0n, , a5 = 0n] = args;
  const low = (value: bigint): number => Number(BigInt.asUintN(32, value));
  const isInRegions = (offset: bigint): boolean => BigInt.asIntN(64, offset) >= TiB;
  const within = (region: bigint, size: number): boolean => a3 >= region && a3 + a2 <= region + BigInt(size);
  const inBar0 = regions.bar < 2 ** 31 && within(BAR0, regions.bar);
  const inConfig = regions.config > 0 && within(CONFIG, regions.config);
  const forBoth = (flags: bigint): boolean => (low(flags) & 3) === 2;
  const isDataFd = (fd: bigint): boolean =>
    dataFds !== undefined && low(fd) >= dataFds.first && low(fd) <= dataFds.last;
  if (audit !== arch.auditArch) return false;
  const name = Object.entries(arch.syscalls).find(([, number]) => number === nr)?.[0];
  switch (name) {
    case 'ioctl':
      return (low(a1) >= VFIO_IOCTLS[0] && low(a1) <= VFIO_IOCTLS[1]) || low(a1) === KVM_SET_DEVICE_ATTR;
    case 'pread64':
      return (isInRegions(a3) && !inBar0 && !inConfig) || isDataFd(a0);
    case 'pwrite64':
      return (isInRegions(a3) && !inBar0) || isDataFd(a0);
    case 'preadv':
    case 'preadv2':
    case 'pwritev':
    case 'pwritev2':
      return isInRegions(a3) || isDataFd(a0);
    case 'lseek':
      return isInRegions(a1) || isDataFd(a0);
    case 'mmap':
      return isInRegions(a5);
    case 'openat':
      return forBoth(a2);
    case 'open':
      return forBoth(a1);
    case 'openat2':
    case 'fstat':
    case 'newfstatat':
    case 'statx':
    case 'stat':
    case 'lstat':
    case 'access':
    case 'faccessat':
    case 'faccessat2':
      return true;
    case 'sendfile':
      return isDataFd(a0) || isDataFd(a1);
    case 'splice':
    case 'copy_file_range':
      return isDataFd(a0) || isDataFd(a2);
    case 'read':
    case 'write':
    case 'readv':
    case 'writev':
    case 'dup':
    case 'dup2':
    case 'dup3':
    case 'fcntl':
      return isDataFd(a0);
    default:
      return false;
  }
}
