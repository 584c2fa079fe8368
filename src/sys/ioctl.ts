import { syscallError, tryIoctl, withAddress } from './libc.ts';

/**
 * ioctl on a struct in memory, which the kernel may fill in. `pointedTo`: what the struct has the addresses of. Throws `ERR_SYSCALL`
 * with the errno; `name` is the ioctl's.
 */
export function ioctl(
  fd: number,
  name: string,
  request: number,
  argument: Uint8Array,
  pointedTo: readonly Uint8Array[] = [],
): number {
  // SAFETY: the argsz of `argument` says no more than its length
  const result = withAddress(argument, (at) => tryIoctl(fd, request, at), pointedTo);
  return checked(name, result);
}

/** ioctl with a number as its argument, or with none. */
export function ioctlValue(fd: number, name: string, request: number, argument = 0): number {
  return checked(name, tryIoctl(fd, request, argument));
}

function checked(name: string, result: number): number {
  if (result < 0) throw syscallError('VFIO', `ioctl(${name})`, -result);
  return result;
}
