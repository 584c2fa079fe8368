import type { ArchName } from './arch.ts';
import { struct } from './struct.ts';

/** `struct stat` as fstat(2) and newfstatat(2) fill it (x86: asm/stat.h; aarch64: asm-generic/stat.h), as far as it says which file it is. */
export const STAT = {
  x64: struct('stat', 144, {
    st_dev: ['u64', 0],
    st_ino: ['u64', 8],
    st_nlink: ['u64', 16],
    st_mode: ['u32', 24],
    st_rdev: ['u64', 40],
    st_blksize: ['u64', 56],
  }),
  arm64: struct('stat', 128, {
    st_dev: ['u64', 0],
    st_ino: ['u64', 8],
    st_mode: ['u32', 16],
    st_nlink: ['u32', 20],
    st_rdev: ['u64', 32],
    st_blksize: ['u32', 56],
  }),
} as const satisfies Readonly<Record<ArchName, unknown>>;

/** The types of a character device and of a directory in a mode (linux/stat.h). */
export const S_IFCHR = 0o020000;
export const S_IFDIR = 0o040000;

/** `STATX_BASIC_STATS` (linux/stat.h). */
export const STATX_BASIC_STATS = 0x7ff;
