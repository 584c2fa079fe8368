import { O_RDWR, SEEK_SET } from '../../abi/fcntl.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { lockFile, openAnew } from '../../sys/file.ts';
import { syscall } from '../../sys/libc.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { BAR0_OFFSET } from '../run/window.ts';

/*
 * A lock on its file tells whether a group or a device is open somewhere: each user gets an open file of his own, which has the lock, so it
 * ends when the last of that file's descriptors is closed, whoever has got one and whatever has become of us.
 */

/** Whether somebody has an open file of this memory that is locked, other than ours. */
export function isOpen(memory: number): boolean {
  using file = openAnew(memory, O_RDWR);
  return !lockFile(file.number, 'exclusive');
}

/** An open file of a device's memory for a user of its own, who reads and writes BAR0 at its position, which begins there, as vfio-pci's does. */
export function openDeviceFile(memory: number): OwnedFd {
  const file = openAnew(memory, O_RDWR);
  syscall('device: position', 'lseek', file.number, BAR0_OFFSET, SEEK_SET);
  return file;
}

/** Takes the lock that users of a device share; only we take others, and for a moment. */
export function shareLock(file: OwnedFd): void {
  if (!lockFile(file.number, 'shared')) throw refuse('EBUSY', 'the device is locked');
}

/**
 * A name may be followed by ` vf_token=UUID`, the secret of a physical function with virtual ones: a device that is neither has none
 * (drivers/vfio/pci/vfio_pci_core.c of Linux 6.12: vfio_pci_core_match).
 */
export function checkName(given: string, name: string): void {
  const options = given.startsWith(name) ? given.slice(name.length) : 'x';
  if (/^ *$/.test(options)) return;
  const why = `VFIO_GROUP_GET_DEVICE_FD: ${given.slice(0, 200)}`;
  if (options.startsWith(' ')) throw refuse('EINVAL', `${why}: the device takes no options, and has no vf_token`);
  throw refuse('ENODEV', `${why}: no such device in the group`);
}
