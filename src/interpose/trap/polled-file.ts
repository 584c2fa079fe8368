import { randomInt } from 'node:crypto';
import { watchedData } from '../../sys/epoll.ts';
import { ELSEWHERE, inodeOfOwn, isAnonymous } from '../../sys/file.ts';

/*
 * Stand-ins of data fds that have a poll of their own are epoll files, which all have the same inode. What tells one from the other is
 * a number that one of the files is watched with. It is above all inode numbers of shared memory, which are counted from 1, and nobody
 * guesses it. Who has it watched with by another epoll file, having seen it, has a stand-in of the same session.
 */

/** The upper half of all such numbers; beyond 2^21 they would be no safe integers. */
const POLLED = 0x16_666d;

export function newPolledNumber(): number {
  return POLLED * 2 ** 32 + randomInt(2 ** 32);
}

/** The number of the stand-in behind a descriptor of this process; `undefined` if it is something else. */
export function polledNumber(fd: number): number | undefined {
  if (!isAnonymous(fd)) return undefined;
  const number = watchedData(fd).find((data) => data >> 32n === BigInt(POLLED));
  return number === undefined ? undefined : Number(number);
}

/** By what a file that this run has given out is told: its inode, or its number; `ELSEWHERE` if it is neither. */
export function fileNumber(fd: number): number {
  const inode = inodeOfOwn(fd);
  return inode === ELSEWHERE ? (polledNumber(fd) ?? ELSEWHERE) : inode;
}
