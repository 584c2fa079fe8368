import { readdirSync, readlinkSync } from 'node:fs';
import { F_GETSIG, F_SETFD, F_SETSIG, FD_CLOEXEC } from '../abi/fcntl.ts';
import { syscall, trySyscall } from './libc.ts';

/** A file descriptor that this object owns and closes, once. */
export class OwnedFd implements Disposable {
  #number: number;

  constructor(number: number) {
    this.#number = number;
  }

  get number(): number {
    if (this.#number < 0) throw new Error('OwnedFd: used after close');
    return this.#number;
  }

  close(): void {
    if (this.#number < 0) return;
    trySyscall('close', this.#number);
    this.#number = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export function setCloseOnExec(fd: number, on: boolean): void {
  syscall(`descriptor ${fd}: set close-on-exec`, 'fcntl', fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

/**
 * Marks an open file with a number from 1 to 64, which all its descriptors in all processes show, and which ends with it:
 * the signal that a file would send if it were asked to send any (fcntl(2), `F_SETSIG`).
 */
export function markFile(fd: number, mark: number): void {
  syscall(`descriptor ${fd}: mark`, 'fcntl', fd, F_SETSIG, mark);
}

/** The number of markFile(), 0 for a file without one. */
export function markOf(fd: number): number {
  return Math.max(0, trySyscall('fcntl', fd, F_GETSIG));
}

/** What Node opens for itself, by the links in /proc/self/fd. */
const NODES_OWN = /^(anon_inode:\[(eventpoll|eventfd|io_uring)\]|\/dev\/null)$/;

/**
 * The descriptors above 2 that this process was given, for a program that takes its place: Node marks them close-on-exec
 * when it starts, as all its own are. Its own are told by their kind: event queues and the pipes of which it has both ends;
 * `opened` are those that were opened since.
 */
export function inheritedDescriptors(opened: readonly (number | undefined)[] = []): number[] {
  const links = new Map<number, string>();
  for (const name of readdirSync('/proc/self/fd')) {
    if (opened.includes(Number(name))) continue;
    try {
      links.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // the one by which the directory was read
    }
  }
  const ends = (link: string): number => [...links].filter(([fd, other]) => fd > 2 && other === link).length;
  return [...links]
    .filter(([fd, link]) => fd > 2 && !NODES_OWN.test(link) && !(link.startsWith('pipe:') && ends(link) > 1))
    .map(([fd]) => fd);
}
