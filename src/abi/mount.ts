/** Flags of mount(2) (linux/mount.h). */
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_BIND = 4096;
export const MS_REC = 16_384;
export const MS_PRIVATE = 0x4_0000;

/** Flag of unshare(2): mounts of one's own (linux/sched.h). */
export const CLONE_NEWNS = 0x0002_0000;
