/** Protection and flags of mmap(2) (asm-generic/mman-common.h, linux/mman.h). */
export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_SHARED_VALIDATE = 3;
export const MAP_TYPE = 0xf;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_DENYWRITE = 0x0800;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;

/** Advice of madvise(2) (asm-generic/mman-common.h; POPULATE_WRITE 5.14). */
export const MADV_REMOVE = 9;
export const MADV_POPULATE_WRITE = 23;

/** Flags of memfd_create(2) (linux/memfd.h, 3.17; NOEXEC_SEAL 6.3). */
export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;
export const MFD_NOEXEC_SEAL = 8;
