import { readFileSync } from 'node:fs';
import { F_GETFL, F_SETFL, O_NONBLOCK, POLLIN, POLLOUT } from '../abi/fcntl.ts';
import { VFIO_MIG_GET_PRECOPY_INFO } from '../abi/vfio-ioctl.ts';
import { VFIO_PRECOPY_INFO_REINIT, vfio_precopy_info } from '../abi/vfio-v2.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { errnoNameOrEio, hasErrno, ShimError } from '../error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { ioctl } from '../sys/ioctl.ts';
import { syscall, trySyscall, withAddress } from '../sys/libc.ts';
import { withPatience } from '../sys/patience.ts';
import type { PrecopyInfo, V2DataSession } from '../v2/device.ts';
import { dataError, deviceError } from '../vfio/client/errors.ts';
import { kernel_live, kernel_state, Live } from './session-state.ts';

export interface DataFdMemory {
  readonly my: ReturnType<typeof kernel_state.view>;
  readonly live: ReturnType<typeof kernel_live.view>;
}

/**
 * The data fd of a kernel driver. It does not block if the driver can say "not yet" (mlx5: `O_NONBLOCK`, poll); the other
 * drivers of Linux 6.12 have all data at hand and ignore the flag. So does xe of 7.1, whose read blocks.
 *
 * A process that takes over learns what its predecessor moved from the file's position, in which the drivers count
 * (drivers/vfio/pci: `pos = &filp->f_pos`): bytes that were read lie where the predecessor's read put them, in shared memory,
 * and are only counted, not read again. If a write that was cut off has moved the position, nobody can tell whether the driver
 * accepted the bytes: that is an error. So is any call that was cut off if the position does not tell, as with xe, whose position
 * stays 0 (drivers/vfio/pci/xe/main.c: xe_vfio_pci_save_read, Linux 7.1); calls that had ended are known without it.
 */
export class KernelDataFd implements V2DataSession {
  readonly #fd: OwnedFd;
  readonly #my: DataFdMemory['my'];
  readonly #live: DataFdMemory['live'];
  #closed = false;
  /** Bytes that a predecessor has moved and not counted. */
  #uncounted = 0;
  /** The error of a predecessor's last call, which the call that repeats it is to get. */
  #owed: ShimError | undefined;

  constructor(fd: OwnedFd, { my, live }: DataFdMemory) {
    this.#fd = fd;
    this.#my = my;
    this.#live = live;
  }

  /** For a session that begins with this object. */
  begin(): void {
    const flags = syscall('data fd: flags', 'fcntl', this.#fd.number, F_GETFL);
    syscall('data fd: do not block', 'fcntl', this.#fd.number, F_SETFL, flags | O_NONBLOCK);
    this.#my.position = 0;
    this.#note(Live.IDLE);
    this.#live.tracked = 0;
  }

  /** For a session that another process has begun. */
  adopt(writing: boolean): void {
    const { session, status, position, tracked } = this.#live;
    if (session !== this.#my.session) return; // nothing was moved yet
    const now = filePosition(this.#fd.number);
    let moved = position;
    if (status !== Live.CALLING) this.#live.tracked = position > 0 && now === position ? 1 : 0;
    else {
      // whether the file's position tells what was moved: it has agreed before, or these are the first bytes and it has moved
      const says = tracked === 1 || (position === 0 && now > 0);
      if (!says || now < position || (writing && now !== position)) {
        this.#owed = new ShimError(
          'ERR_SESSION_ENDED',
          'migration data: a supervisor was killed while the driver moved data; nobody can tell whether it did',
          { errno: 'EIO' },
        );
        return;
      }
      moved = now;
    }
    this.#uncounted = Math.max(0, moved - this.#my.position);
    if (status === Live.FAILED) this.#owed = dataError(writing ? 'write' : 'read', errnoNameOrEio(this.#live.errno));
  }

  read(into: Uint8Array): number {
    return this.#move('read', into);
  }

  write(from: Uint8Array): number {
    return from.length === 0 ? 0 : this.#move('write', from);
  }

  precopyInfo(): PrecopyInfo {
    this.#checkOpen();
    const bytes = vfio_precopy_info.encode({ argsz: vfio_precopy_info.size });
    try {
      // mlx5 ends the SAVE that is under way first (mlx5vf_cmd_query_vhca_migration_state), whatever O_NONBLOCK says
      withPatience(() => ioctl(this.#fd.number, 'VFIO_MIG_GET_PRECOPY_INFO', VFIO_MIG_GET_PRECOPY_INFO, bytes));
    } catch (error) {
      if (hasErrno(error, 'EINTR')) throw dataError('VFIO_MIG_GET_PRECOPY_INFO', 'EAGAIN');
      throw deviceError('VFIO_MIG_GET_PRECOPY_INFO', error);
    }
    const { flags, initial_bytes, dirty_bytes } = vfio_precopy_info.decode(bytes);
    const reinit = (flags & VFIO_PRECOPY_INFO_REINIT) !== 0; // without the feature, the kernel gives back the 0 from here
    return { initialBytes: clamped(initial_bytes), dirtyBytes: clamped(dirty_bytes), reinit };
  }

  close(): void {
    this.#closed = true;
    this.#fd.close();
  }

  #move(call: 'read' | 'write', bytes: Uint8Array): number {
    this.#checkOpen();
    const my = this.#my;
    if (this.#uncounted > 0) {
      const length = Math.min(this.#uncounted, bytes.length);
      this.#uncounted -= length;
      my.position += length;
      return length;
    }
    if (this.#owed !== undefined) {
      const error = this.#owed;
      if (error.code !== 'ERR_SESSION_ENDED') this.#owed = undefined;
      throw error;
    }
    this.#note(Live.CALLING);
    // SAFETY: the length is that of `bytes`
    const result = withAddress(bytes, (at) => trySyscall(call, this.#fd.number, at, bytes.length));
    if (result < 0) {
      this.#live.errno = -result;
      if (this.#live.tracked === 1 && !isMoveless(errnoNameOrEio(-result))) this.#checkPosition();
      this.#note(Live.FAILED);
      const events = call === 'read' ? POLLIN : POLLOUT;
      throw dataError(call, errnoNameOrEio(-result), { fd: this.#fd.number, events });
    }
    my.position += result;
    this.#note(Live.IDLE);
    if (result > 0 && my.position === result) {
      this.#live.tracked = filePosition(this.#fd.number) === result ? 1 : 0;
    }
    return result;
  }

  /** A driver that fails midway may have moved the position by what it does not count, as mlx5's and virtio's do. */
  #checkPosition(): void {
    if (filePosition(this.#fd.number) !== this.#my.position) this.#live.tracked = 0;
  }

  /** Writes `position` and `session` before `status`: whoever reads them finds no status that is newer than they are. */
  #note(status: number): void {
    const live = this.#live;
    if (status !== Live.CALLING) {
      live.position = this.#my.position;
      live.session = this.#my.session;
    }
    live.status = status;
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new ShimError('ERR_SESSION_ENDED', 'migration data: its session has ended', { errno: 'ENODEV' });
    }
  }
}

/** Whether a call that ends with this errno has moved nothing. */
function isMoveless(errno: ErrnoName): boolean {
  return errno === 'EAGAIN' || errno === 'ENOMSG' || errno === 'EINTR';
}

/** `f_pos` of an open file of this process; -1 if the kernel does not say it. */
function filePosition(fd: number): number {
  const pos = /^pos:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return pos === undefined ? -1 : Number(pos);
}

function clamped(bytes: bigint): number {
  return Math.min(Number(bytes), Number.MAX_SAFE_INTEGER);
}
