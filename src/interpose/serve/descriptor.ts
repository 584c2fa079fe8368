import { ShimError } from '../../error.ts';
import { ELSEWHERE, inodeOf } from '../../sys/file.ts';
import { fileNow, fileOf } from '../trap/file-look.ts';
import { isStandIn } from '../trap/stand-in.ts';

/*
 * Who a descriptor of the target is. All files that this run has given out are shared memory, and are told by their inode, whoever
 * asks and whatever for. Only devices of the kernel are not: they are told by the mark on their open file (run-mark.ts).
 */

export type Descriptor =
  /** An emulated device, by its place. */
  | { readonly kind: 'device'; readonly place: number }
  /** The data fd of the session that goes on, by its device's place. */
  | { readonly kind: 'data fd'; readonly place: number }
  | { readonly kind: 'group'; readonly group: number }
  | { readonly kind: 'container'; readonly inode: number }
  /** An open /dev/iommu. */
  | { readonly kind: 'iommufd'; readonly inode: number }
  /** A data fd whose session has ended. */
  | { readonly kind: 'ended data fd' };

/** Who has given files out: knows them by their inode. */
export interface FileOwner {
  whose(inode: number): Descriptor | undefined;
}

/** What a descriptor is now; `undefined` if it is none of ours. Throws if that cannot be told. */
export function identify(owner: FileOwner, tid: number, fd: number): Descriptor | undefined {
  return identifyBy(fileNow, owner, tid, fd);
}

/** As identify(), for calls that other files have too: what cannot be told is none of ours. */
export function identifyIfSeen(owner: FileOwner, tid: number, fd: number): Descriptor | undefined {
  try {
    return identifyBy(inodeOf, owner, tid, fd);
  } catch (error) {
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}

/** As identify(), or as it was found a moment ago: for calls that are made again and again, and deceive nobody but their caller. */
export function identifyLately(owner: FileOwner, tid: number, fd: number): Descriptor | undefined {
  return identifyBy(fileOf, owner, tid, fd);
}

function identifyBy(
  look: (tid: number, fd: number) => number | undefined,
  owner: FileOwner,
  tid: number,
  fd: number,
): Descriptor | undefined {
  const inode = look(tid, fd);
  if (inode === undefined || inode === ELSEWHERE) return undefined;
  return owner.whose(inode) ?? (isStandIn(tid, fd) ? { kind: 'ended data fd' } : undefined);
}
