import { statSync } from 'node:fs';
import { createSharedMemory } from './memory.ts';

/** The file system that shared memory lies on: inode numbers say something only within it. */
const sharedMemory = ((): number => {
  using file = createSharedMemory('vfio-shim-probe', 0);
  return statSync(`/proc/self/fd/${file.number}`).dev;
})();

/** What inodeOf() says of a file that is not shared memory: no inode number. */
const ELSEWHERE = 0;

/**
 * The inode of the shared memory behind a descriptor of another process, by a thread of it: 0 where the file is something
 * else, `undefined` where it has no such descriptor.
 */
export function inodeOf(tid: number, fd: number): number | undefined {
  const found = fd < 0 ? undefined : statSync(`/proc/${tid}/fd/${fd}`, { throwIfNoEntry: false });
  return found === undefined || found.dev === sharedMemory ? found?.ino : ELSEWHERE;
}

/** The inode behind a descriptor of this process. */
export function inodeOfOwn(fd: number): number {
  return statSync(`/proc/self/fd/${fd}`).ino;
}
