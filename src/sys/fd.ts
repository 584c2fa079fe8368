import { readdirSync, readlinkSync } from 'node:fs';
import {
  F_DUPFD_CLOEXEC,
  F_GETFL,
  F_GETOWN_EX,
  F_GETSIG,
  F_OWNER_PID,
  F_SETFD,
  F_SETFL,
  F_SETOWN_EX,
  F_SETSIG,
  FD_CLOEXEC,
  f_owner_ex,
  O_ACCMODE,
  O_APPEND,
  O_CLOEXEC,
  O_NONBLOCK,
} from '../abi/fcntl.ts';
import { addressOf, syscall, trySyscall } from './libc.ts';

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

/** Another descriptor of the same open file, which a program that takes this process's place does not get. */
export function duplicateOwn(fd: number): OwnedFd {
  return new OwnedFd(syscall(`descriptor ${fd}: duplicate`, 'fcntl', fd, F_DUPFD_CLOEXEC, 0));
}

/** A counter of which poll(2) says whether it is 0, and that a read sets to 0 (eventfd(2)). */
export function createEventFd(): OwnedFd {
  return new OwnedFd(syscall('event counter', 'eventfd2', 0, O_CLOEXEC | O_NONBLOCK));
}

/** True for a counter as createEventFd() makes it, whoever has made it. */
export function isEventFd(fd: number): boolean {
  return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
}

export function setCloseOnExec(fd: number, on: boolean): void {
  syscall(`descriptor ${fd}: set close-on-exec`, 'fcntl', fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

/** How a file is open (fcntl(2), `F_GETFL`), as far as this architecture's open(2) is told it. */
export function statusFlags(fd: number): number {
  return syscall(`descriptor ${fd}`, 'fcntl', fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK);
}

/** Lets reads and writes of an open file wait, by all its descriptors in all processes. */
export function setBlocking(fd: number): void {
  const flags = syscall(`descriptor ${fd}`, 'fcntl', fd, F_GETFL);
  syscall(`descriptor ${fd}: let it wait`, 'fcntl', fd, F_SETFL, flags & ~O_NONBLOCK);
}

// SAFETY: it lives as long as this module, and one thread uses it, for the time of a call
const owner = new Uint8Array(f_owner_ex.size);
const ownerAt = addressOf(owner);
const ownerView = f_owner_ex.view(owner);

/**
 * Marks an open file with a number from 1 to 64 and a process, which all its descriptors in all processes show, and which end with it:
 * the signal that a file would send if it were asked to send any, and to whom (fcntl(2), `F_SETSIG`, `F_SETOWN_EX`).
 */
export function markFile(fd: number, mark: number, process: number): void {
  ownerView.type = F_OWNER_PID;
  ownerView.pid = process;
  syscall(`descriptor ${fd}: mark with process ${process}`, 'fcntl', fd, F_SETOWN_EX, ownerAt);
  syscall(`descriptor ${fd}: mark`, 'fcntl', fd, F_SETSIG, mark);
}

/** What markFile() left there: mark 0 for a file without one, and owner 0 if there is none, or none any more. */
export function markOf(fd: number): { readonly mark: number; readonly owner: number } {
  const mark = Math.max(0, trySyscall('fcntl', fd, F_GETSIG));
  ownerView.pid = 0;
  if (mark > 0) trySyscall('fcntl', fd, F_GETOWN_EX, ownerAt);
  return { mark, owner: ownerView.pid };
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
