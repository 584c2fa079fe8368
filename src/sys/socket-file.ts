import { lstatSync, renameSync, unlinkSync } from 'node:fs';
import { ShimError } from '../error.ts';
import type { OwnedFd } from './fd.ts';
import { acceptFrom, connectNow, listenAt } from './message-socket.ts';

/**
 * The file of a socket that listens. It is made under another name and then put in its place, so that whoever connects finds the old
 * one, whose server has gone, or the new one, which listens already.
 */
export class SocketFile {
  readonly path: string;
  /** Tells the file from another that gets its name. */
  readonly identity: string;
  readonly #fd: OwnedFd;

  /** Throws `EADDRINUSE` if a server listens there, `EEXIST` if there is a file that is no socket. `mode`: who may connect, by the umask if it is absent. */
  constructor(path: string, mode?: number) {
    checkFree(path);
    const fresh = `${path}.${process.pid}`;
    remove(fresh); // of a process that had this number and was killed
    this.path = path;
    this.#fd = listenAt(fresh, mode);
    this.identity = identityOf(fresh) ?? '';
    try {
      renameSync(fresh, path);
    } catch (error) {
      this.#fd.close();
      remove(fresh);
      throw error;
    }
  }

  get fd(): number {
    return this.#fd.number;
  }

  accept(): OwnedFd | undefined {
    return acceptFrom(this.fd);
  }

  /** Nobody is listened to any more. The file goes, unless another server has put its own in its place. */
  close(): void {
    removeSocketFile(this.path, this.identity);
    this.#fd.close();
  }
}

/** Removes the file of a socket, for a process that has inherited that, unless the name is another's by now. */
export function removeSocketFile(path: string, identity: string): void {
  if (identityOf(path) === identity) remove(path);
}

function checkFree(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ShimError('ERR_ARGUMENT', `listen at ${path}: there is a file that is no socket`, { errno: 'EEXIST' });
  }
  if (!isListening(path)) return;
  throw new ShimError('ERR_ARGUMENT', `listen at ${path}: a server listens there already`, { errno: 'EADDRINUSE' });
}

function isListening(path: string): boolean {
  try {
    connectNow(path)?.close();
    return true; // or so many wait for it that it takes no more
  } catch (error) {
    if (error instanceof ShimError && error.errno === 'ECONNREFUSED') return false;
    throw error;
  }
}

function identityOf(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found && `${found.dev}:${found.ino}`;
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
