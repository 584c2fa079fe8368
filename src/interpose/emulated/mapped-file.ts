import { fstatSync } from 'node:fs';
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
