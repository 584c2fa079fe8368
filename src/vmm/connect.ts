import { connect, type Socket } from 'node:net';
import { ShimError } from '../error.ts';
import type { Child } from './child.ts';
import { poll } from './deadline.ts';

/** Connects to a UNIX socket that a child just started is about to open. */
export function connectWhenReady(path: string, child: Child, ms: number): Promise<Socket> {
  const attempt = async (): Promise<Socket | undefined> => {
    if (child.fate !== undefined) throw new ShimError('ERR_TARGET', `cannot connect to ${path}: ${child.fate}`);
    return tryConnect(path);
  };
  return poll(attempt, ms, () => `a connection to ${path}${child.lastWords}`);
}

/** A connection; `undefined` if nobody listens yet. */
function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const refused = (error: NodeJS.ErrnoException): void =>
      ['ENOENT', 'ECONNREFUSED'].includes(error.code ?? '') ? resolve(undefined) : reject(error);
    socket.once('error', refused);
    socket.once('connect', () => {
      socket.off('error', refused);
      resolve(socket);
    });
  });
}

/** Calls `onEnd` once, with the reason, when the connection is over. */
export function onClose(socket: Socket, onEnd: (reason: string) => void): void {
  let reason = 'the peer closed the connection';
  socket.on('error', (error) => (reason = error.message)); // `close` follows
  socket.on('close', () => onEnd(reason));
}
