import { readFileSync } from 'node:fs';

/**
 * Whether somebody listens at a socket, which has its file before: the kernel's table says it (`__SO_ACCEPTCON`). To connect would be to be
 * the one that is waited for.
 */
export function listens(path: string): boolean {
  const sockets = readFileSync('/proc/net/unix', 'latin1').split('\n');
  return sockets.some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === '00010000');
}
