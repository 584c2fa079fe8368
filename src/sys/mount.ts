import { CLONE_NEWNS, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC } from '../abi/mount.ts';
import { addressOf, cString, syscall, withAddress } from './libc.ts';

/**
 * From now on this thread, and what it starts, has mounts of its own: nobody else sees those that are made. Throws `ERR_SYSCALL` with
 * `EPERM` without CAP_SYS_ADMIN in the user namespace.
 */
export function privateMounts(): void {
  syscall('have mounts of its own', 'unshare', CLONE_NEWNS);
  withAddress(cString('/'), (root) => syscall('keep mounts to itself', 'mount', 0, root, 0, MS_REC | MS_PRIVATE, 0));
}

/** Shows a directory in the place of another one. */
export function bindMount(directory: string, at: string): void {
  const from = cString(directory);
  // SAFETY: withAddress() keeps both until the call returns
  withAddress(
    cString(at),
    (place) => syscall(`mount ${directory} at ${at}`, 'mount', addressOf(from), place, 0, MS_BIND, 0),
    [from],
  );
}

/** Shows an empty file system in memory in the place of a directory. */
export function mountEmpty(at: string): void {
  const type = cString('tmpfs');
  const options = cString('mode=755,size=1M');
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  // SAFETY: withAddress() keeps all until the call returns
  withAddress(
    cString(at),
    (place) =>
      syscall(`mount tmpfs at ${at}`, 'mount', addressOf(type), place, addressOf(type), flags, addressOf(options)),
    [type, options],
  );
}
