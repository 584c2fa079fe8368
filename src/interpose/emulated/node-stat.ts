import { statx } from '../../abi/fcntl.ts';
import { S_IFCHR, S_IFDIR, STAT, STATX_BASIC_STATS } from '../../abi/stat.ts';
import { arch } from '../../sys/libc.ts';
import { withAddress } from '../../sys/libc.ts';
import type { Call } from '../trap/call.ts';
import type { Node } from './node-paths.ts';

const { syscalls } = arch;
const [legacyStat, legacyLstat, legacyAccess] = (['stat', 'lstat', 'access'] as const).map((name) =>
  name in syscalls ? syscalls[name] : -1,
);

/** What a call that looks at a file names: a descriptor, a path by its argument, or either; and where the answer goes, if it is a struct. */
interface Look {
  readonly fd: number | undefined;
  readonly path: number | undefined;
  readonly into: { readonly argument: number; readonly struct: 'stat' | 'statx' } | undefined;
}

/** How a call of the stat and access families looks at a file; `undefined` for other calls. */
export function lookOf(call: Call): Look | undefined {
  const into = (argument: number, struct: 'stat' | 'statx' = 'stat'): Look['into'] => ({ argument, struct });
  switch (call.nr) {
    case syscalls.fstat:
      return { fd: call.s32(0), path: undefined, into: into(1) };
    case syscalls.newfstatat:
      return { fd: call.s32(0), path: 1, into: into(2) };
    case syscalls.statx:
      return { fd: call.s32(0), path: 1, into: into(4, 'statx') };
    case legacyStat:
    case legacyLstat:
      return { fd: undefined, path: 0, into: into(1) };
    case legacyAccess:
      return { fd: undefined, path: 0, into: undefined };
    case syscalls.faccessat:
    case syscalls.faccessat2:
      return { fd: call.s32(0), path: 1, into: undefined };
    default:
      return undefined;
  }
}

/** devtmpfs, whatever its number is on this host. */
const DEVTMPFS_MINOR = 5;
const BLOCK = 4096;

/** Answers with the character device that a node shows, or the directory that it is. Whoever may open it may access it. */
export function answerLook(call: Call, { into }: Look, node: Node): number {
  if (into === undefined) return 0;
  const mode = (node.kind === 'directory' ? S_IFDIR : S_IFCHR) | node.mode;
  const ino = 1000 + 2 * Math.max(0, node.place) + (node.kind === 'cdev' ? 1 : 0);
  const bytes =
    into.struct === 'statx'
      ? statx.encode({
          stx_mask: STATX_BASIC_STATS,
          stx_blksize: BLOCK,
          stx_nlink: 1,
          stx_mode: mode,
          stx_ino: BigInt(ino),
          stx_rdev_major: node.major,
          stx_rdev_minor: node.minor,
          stx_dev_minor: DEVTMPFS_MINOR,
        })
      : encodeStat(mode, ino, node);
  // SAFETY: the length is that of `bytes`
  withAddress(bytes, (at) => call.writeFrom(call.count(into.argument), at, bytes.length));
  return 0;
}

/** A device number as stat(2) has it: the kernel's new_encode_dev() (linux/kdev_t.h). */
function encodeDevice(major: number, minor: number): bigint {
  return BigInt((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12));
}

function encodeStat(st_mode: number, ino: number, { major, minor }: Node): Uint8Array {
  const common = {
    st_dev: BigInt(DEVTMPFS_MINOR),
    st_ino: BigInt(ino),
    st_mode,
    st_rdev: encodeDevice(major, minor),
  };
  return arch.name === 'x64'
    ? STAT.x64.encode({ ...common, st_nlink: 1n, st_blksize: BigInt(BLOCK) })
    : STAT.arm64.encode({ ...common, st_nlink: 1, st_blksize: BLOCK });
}
