import { fstatSync, readFileSync } from 'node:fs';
import { O_ACCMODE, O_RDWR } from '../../abi/fcntl.ts';
import { ELSEWHERE, inodeOfOwn, openFlagsOf } from '../../sys/file.ts';
import { duplicateFd, identityOf } from '../../sys/pidfd.ts';
import type { MappedFile } from '../../vfio/server/iommufd-state.ts';
import { refuse } from '../../vfio/server/refuse.ts';

/** A memfd of a thread's process: by its descriptor there, and its inode, it is found again. */
export function fileOf(tid: number, fd: number): MappedFile {
  const flags = openFlagsOf(tid, fd);
  using own = fd < 0 ? undefined : duplicateFd(tid, fd);
  if (own === undefined || flags === undefined) throw refuse('EBADF', `IOMMU_IOAS_MAP_FILE: no descriptor ${fd}`);
  const inode = inodeOfOwn(own.number);
  if (inode === ELSEWHERE) throw refuse('EINVAL', `IOMMU_IOAS_MAP_FILE: descriptor ${fd} is no memfd`);
  return {
    process: identityOf(tid) ?? 0n,
    program: BigInt(inode),
    file: fd + 1,
    size: BigInt(fstatSync(own.number).size),
    writable: (flags & O_ACCMODE) === O_RDWR,
  };
}

/** Of a mapping in proc_pid_maps(5): its addresses, and the inode of its file, if that is shared memory. */
const MAPPING = /^([\da-f]+)-([\da-f]+) \S+ \S+ \S+ (\d+) +\/memfd:/gm;

/** A thread's process has one of these memfds, by their inodes, mapped within a range of addresses. One that is gone, or not to be seen, has none. */
export function hasFile(tid: number, inodes: ReadonlySet<number>, address: bigint, length: bigint): boolean {
  for (const [, from = '', to = '', inode] of mapsOf(tid).matchAll(MAPPING)) {
    if (inodes.has(Number(inode)) && BigInt(`0x${from}`) < address + length && address < BigInt(`0x${to}`)) return true;
  }
  return false;
}

function mapsOf(tid: number): string {
  try {
    return readFileSync(`/proc/${tid}/maps`, 'latin1');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}
