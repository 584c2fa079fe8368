import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Order } from '../interpose/run/plan.ts';
import { kindOf } from '../sim/drivers.ts';
import { onFile } from '../state-file/errors.ts';
import { SocketFile } from '../sys/socket-file.ts';

/** Whoever may connect learns of the VMM what its owner does. */
const OWNER_ONLY = 0o600;

/** Begins a run with a socket that listens at the path of `--status`. It is removed if the run cannot begin, and by the keeper otherwise. */
export function beginWithStatus(path: string, order: Order, begin: (order: Order) => void): void {
  const socket = openStatus(path);
  try {
    const protocols = order.devices.map(({ spec }) => kindOf(spec).protocol);
    const status = { path: socket.path, identity: socket.identity, protocols };
    begin({ ...order, status, fds: { ...order.fds, status: socket.fd } });
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** In a directory, the socket has the number of this process, which becomes the VMM. */
function openStatus(path: string): SocketFile {
  return onFile(path, () => {
    const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
    return new SocketFile(resolve(isDirectory ? join(path, `${process.pid}.sock`) : path), OWNER_ONLY);
  });
}
