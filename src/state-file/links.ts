import { lstatSync, readlinkSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { onFile } from './errors.ts';

/** As many as the kernel follows (linux/namei.h: MAXSYMLINKS). */
const MAX_LINKS = 40;

/**
 * The name that a path leads to through symbolic links, which is no link itself, or names nothing. Somebody who may write in
 * the same directory could have put a link there that leads to any file of this user's: links are followed that are this
 * user's own or root's. Throws `ERR_FILE` with `EACCES` for others, as the kernel does in sticky directories
 * (fs.protected_symlinks).
 */
export function behindLinks(path: string): string {
  let name = resolve(path);
  for (let followed = 0; followed <= MAX_LINKS; followed += 1) {
    const found = onFile(path, () => lstatSync(name, { throwIfNoEntry: false }));
    if (found?.isSymbolicLink() !== true) return name;
    if (found.uid !== 0 && found.uid !== process.geteuid?.()) {
      throw new ShimError('ERR_FILE', `${path}: leads through a symbolic link of another user (${name})`, {
        errno: 'EACCES',
      });
    }
    const link = onFile(path, () => readlinkSync(name));
    name = resolve(dirname(name), link);
  }
  throw new ShimError('ERR_FILE', `${path}: too many levels of symbolic links`, { errno: 'ELOOP' });
}
