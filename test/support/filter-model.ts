import type { Arch } from '../../src/abi/arch.ts';
import type { FdWindow } from '../../src/interpose/run/plan.ts';
import type { SeccompData } from './bpf-machine.ts';

/** linux/kvm.h. */
const KVM_SET_DEVICE_ATTR = 0x4018_aee1;
/** Those of linux/vfio.h and linux/iommufd.h. */
const VFIO_IOCTLS = [0x3b64, 0x3b94] as const;

/** asm-generic/mman-common.h, asm-generic/mman.h. */
const PROT_WRITE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_DENYWRITE = 0x800;

/** What the filter is for, in words of this language: true for a system call that a supervisor has to see. */
export function isTrapped({ nr, arch: audit, args }: SeccompData, arch: Arch, dataFds?: FdWindow): boolean {
  const [a0 = 0n, a1 = 0n, a2 = 0n, a3 = 0n, , a5 = 0n] = args;
  const low = (value: bigint): number => Number(BigInt.asUintN(32, value));
  const isBehindBar0 = (offset: bigint): boolean => BigInt.asIntN(64, offset) >= 2n ** 40n;
  const has = (flags: bigint, flag: number): boolean => (low(flags) & flag) !== 0;
  const isFile = (flags: bigint): boolean => !has(flags, MAP_ANONYMOUS) && !has(flags, MAP_DENYWRITE);
  const isSharedFile = (flags: bigint): boolean => isFile(flags) && [1, 3].includes(low(flags) & 0xf);
  const isPrivateFile = (flags: bigint): boolean => isFile(flags) && (low(flags) & 0xf) === 2;
  const forBoth = (flags: bigint): boolean => (low(flags) & 3) === 2;
  const isDataFd = (fd: bigint): boolean =>
    dataFds !== undefined && low(fd) >= dataFds.first && low(fd) <= dataFds.last;
  if (audit !== arch.auditArch) return false;
  const name = Object.entries(arch.syscalls).find(([, number]) => number === nr)?.[0];
  switch (name) {
    case 'ioctl':
      return (low(a1) >= VFIO_IOCTLS[0] && low(a1) <= VFIO_IOCTLS[1]) || low(a1) === KVM_SET_DEVICE_ATTR;
    case 'pread64':
    case 'preadv':
    case 'preadv2':
    case 'pwrite64':
    case 'pwritev':
    case 'pwritev2':
      return isBehindBar0(a3) || isDataFd(a0);
    case 'lseek':
      return isBehindBar0(a1) || isDataFd(a0);
    case 'mmap':
      if (isBehindBar0(a5)) return true;
      return has(a2, PROT_WRITE) && (isSharedFile(a3) || (isPrivateFile(a3) && !has(a3, MAP_FIXED)));
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
