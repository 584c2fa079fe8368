/* oxlint-disable no-underscore-dangle -- the kernel's names, verbatim */
/**
 * Ioctl numbers (asm-generic/ioctl.h; the same on x86-64 and aarch64): direction in bits 30 and 31, size of the argument in
 * bits 16 to 29, type in bits 8 to 15, number in bits 0 to 7.
 */
export const _IOC_NONE = 0;
export const _IOC_WRITE = 1;
export const _IOC_READ = 2;

/** `_IOC(dir, type, nr, size)`; `type` is one character, as in the headers. */
export function _IOC(dir: number, type: string, nr: number, size: number): number {
  return ((dir << 30) | (size << 16) | (type.charCodeAt(0) << 8) | nr) >>> 0;
}

/** An ioctl that encodes neither direction nor size. All of VFIO's are of this form; their structs carry `argsz`. */
export function _IO(type: string, nr: number): number {
  return _IOC(_IOC_NONE, type, nr, 0);
}

/** An ioctl whose argument the kernel fills in. */
export function _IOR(type: string, nr: number, size: number): number {
  return _IOC(_IOC_READ, type, nr, size);
}

/** An ioctl whose argument the kernel reads. */
export function _IOW(type: string, nr: number, size: number): number {
  return _IOC(_IOC_WRITE, type, nr, size);
}

/** An ioctl whose argument the kernel reads and fills in. */
export function _IOWR(type: string, nr: number, size: number): number {
  return _IOC(_IOC_READ | _IOC_WRITE, type, nr, size);
}
