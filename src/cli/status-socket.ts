import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SocketFile } from '../sys/socket-file.ts';

/** Whoever may connect learns of the VMM what its owner does. */
const OWNER_ONLY = 0o600;

/** Listens at the socket of `--status`: of this process, which becomes the VMM, in a directory. */
export function openStatus(path: string): SocketFile {
  const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return new SocketFile(resolve(isDirectory ? join(path, `${process.pid}.sock`) : path), OWNER_ONLY);
}
