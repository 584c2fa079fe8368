/** Names, numbers and layouts of the kernel's interfaces. */
export * from './arch.ts';
export * from './auxvec.ts';
export * from './bpf.ts';
export * from './epoll.ts';
export * from './errno.ts';
export * from './fcntl.ts';
export * from './ioctl.ts';
export * from './mman.ts';
export * from './mount.ts';
export * from './prctl.ts';
export * from './ptrace.ts';
export * from './seccomp.ts';
export * from './struct.ts';
export * from './syscalls.ts';
export * from './vfio.ts';
export * from './vfio-v1.ts';
export * from './vfio-v2.ts';
