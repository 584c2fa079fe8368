import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, linkSync, lstatSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { onFile } from './errors.ts';
import { behindLinks } from './links.ts';

/** Holds what the device holds, so it is for its owner only. */
const MODE = 0o600;
/** What link() fails with on a file system that has none. */
const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

/**
 * A file that is there when it is complete, and not before: written under another name in the same directory, brought to
 * the disk, then given its name.
 */
export class NewFile implements Disposable {
  /** The name that it has until commit(). */
  readonly temporary: string;
  /** As it was given, for messages. */
  readonly #given: string;
  readonly #path: string;
  readonly #replace: boolean;
  #fd: number;
  #committed = false;

  /** Throws `ERR_FILE`: `EEXIST` if the file exists, unless it may be replaced. */
  constructor(path: string, replace = false) {
    this.#given = path;
    this.#replace = replace;
    this.#path = destination(path, replace);
    const name = `.vfio-shim-${randomBytes(6).toString('hex')}.tmp`; // short, however long the file's own name is
    this.temporary = join(dirname(this.#path), name);
    this.#fd = onFile(path, () => openSync(this.temporary, 'wx', MODE));
  }

  /** Writes all the bytes at a place, or throws. */
  write(bytes: Uint8Array, position: number): void {
    onFile(this.#given, () => {
      for (let done = 0; done < bytes.length;) {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, position + done);
      }
    });
  }

  /** Gives the file its name. Without leave to replace, a file that has appeared meanwhile stays. */
  commit(): void {
    onFile(this.#given, () => {
      fsyncSync(this.#fd);
      this.#close();
      if (this.#replace) renameSync(this.temporary, this.#path);
      else this.#linkOrRename();
    });
    this.#committed = true;
    syncDirectory(dirname(this.#path));
  }

  /** Removes what was written, unless it has been committed. */
  [Symbol.dispose](): void {
    if (this.#fd >= 0) this.#close();
    if (!this.#committed) rmSync(this.temporary, { force: true });
  }

  /** link() fails if the name is taken, which rename() does not. Some file systems have no links. */
  #linkOrRename(): void {
    try {
      linkSync(this.temporary, this.#path);
    } catch (error) {
      if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
      destination(this.#given, false);
      renameSync(this.temporary, this.#path);
      return;
    }
    rmSync(this.temporary);
  }

  #close(): void {
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Where the file will be: if it replaces a link of this user's, behind that. Only a plain file is replaced. */
function destination(path: string, replace: boolean): string {
  const found = onFile(path, () => lstatSync(path, { throwIfNoEntry: false }));
  if (found === undefined) return resolve(path);
  if (!replace) {
    throw new ShimError('ERR_FILE', `${path}: exists already; --force replaces it`, { errno: 'EEXIST' });
  }
  const real = behindLinks(path);
  if (onFile(path, () => lstatSync(real)).isFile()) return real;
  throw new ShimError('ERR_FILE', `${path}: is not a plain file, and stays as it is`, { errno: 'EEXIST' });
}

/** Brings the name to the disk too, if the file system does that on request. */
function syncDirectory(path: string): void {
  try {
    const fd = openSync(path, 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // the file is complete and has its name
  }
}
