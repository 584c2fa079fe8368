import { O_NONBLOCK, O_RDONLY, O_WRONLY } from '../../abi/fcntl.ts';
import { struct } from '../../abi/struct.ts';
import { VFIO_MIG_GET_PRECOPY_INFO } from '../../abi/vfio.ts';
import { VFIO_PRECOPY_INFO_REINIT, vfio_precopy_info } from '../../abi/vfio-v2.ts';
import { isNotReady } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { inodeOfOwn, openAnew, openFlagsOf } from '../../sys/file.ts';
import { addressOf, withAddress } from '../../sys/libc.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Call } from '../trap/call.ts';
import type { FdWindow } from '../run/plan.ts';
import type { PolledDataFd } from './polled-data-fd.ts';
import { createStandIn, freeNumber, give } from '../trap/stand-in.ts';
import { TargetBuffer } from '../trap/target-buffer.ts';

/*
 * The data fds of a v2 device. The target gets a stand-in, a descriptor in a reserved window of numbers: the filter traps the calls
 * on these numbers, and they are served here, as the kernel serves them for a driver that has read and write alone, or poll as well.
 */

/** The most that one call reads, or writes by a copy, in bytes: what QEMU 10 asks for. */
const PIECE = 1024 * 1024;

const data_fd = struct('data_fd', 64, {
  /** What tells the file of the session that goes on from those of earlier ones (polled-file.ts). */
  file: ['count', 0],
});

/** What a device's data fd needs to know of it. */
export interface DataFdDevice {
  readonly v2: V2Device | undefined;
  /** What a read has taken from it can be taken back: undo() knows all that it has changed. */
  readonly givesAgain: boolean;
  /** Takes back what the call has changed so far. */
  undo(): void;
}

/** The data fds of one device. */
export class DataFds {
  readonly #device: DataFdDevice;
  readonly #window: FdWindow;
  readonly #my: ReturnType<typeof data_fd.view>;
  readonly #polled: PolledDataFd | undefined;
  #readsAhead = false;

  /** Without `polled`, all drivers have data fds as those without poll. */
  constructor(device: DataFdDevice, window: FdWindow, state: Uint8Array, polled?: PolledDataFd) {
    this.#device = device;
    this.#window = window;
    this.#my = data_fd.view(state);
    this.#polled = polled;
    polled?.adopt();
    this.showReadiness();
  }

  /** The number of the file of the session that goes on, as fileNumber(). */
  get file(): number {
    return this.#my.file;
  }

  /** A call on the device is ending: what it has changed shows in the target's poll(2) before the target has the answer. */
  showReadiness(): void {
    const polled = this.#polled;
    if (polled?.goesOn === true) polled.show(this.#device.v2?.openSession()?.readableFrom?.());
  }

  /** Gives the target a data fd for a session that has just begun, once it has been told its number. */
  open(call: Call, listener: NotificationReply, resuming: boolean, tell: (fd: number) => void): void {
    using file = this.#begin(resuming); // whatever follows, those of earlier sessions are at their end
    const fd = freeNumber(call, this.#window);
    tell(fd);
    give(call, listener, file, fd, true);
  }

  #begin(resuming: boolean): OwnedFd {
    const polled = this.#device.v2?.openSession()?.readableFrom === undefined ? undefined : this.#polled;
    if (polled !== undefined) {
      const { file, number } = polled.begin();
      this.#my.file = number;
      return file;
    }
    using file = createStandIn();
    this.#my.file = inodeOfOwn(file.number);
    return openAnew(file.number, resuming ? O_RDONLY : O_WRONLY);
  }

  #session(): V2DataSession {
    const session = this.#device.v2?.openSession();
    if (session === undefined) throw refuse('ENODEV', 'data fd: its session has ended');
    return session;
  }

  /** read and readv. */
  read(call: Call): number {
    const session = this.#session();
    const buffer = TargetBuffer.of(call);
    const count = Math.min(buffer.length, PIECE);
    if (count === 0) return session.read(bounce.subarray(0, 0));
    const bytes = session.peek?.(count);
    if (bytes !== undefined) return this.#readInPlace(buffer, session, bytes);
    if (!this.#device.givesAgain) buffer.prove(count);
    const length = readOrRefuse(call, session, bounce.subarray(0, count));
    try {
      buffer.write(bounceAt, length);
    } catch (error) {
      this.#device.undo(); // whoever reads next gets them, as far as the driver can give them again
      throw error;
    }
    return length;
  }

  /** Bytes that lie where they can be taken from: they count as read once the target has them. */
  #readInPlace(buffer: TargetBuffer, session: V2DataSession, bytes: Uint8Array): number {
    if (bytes.length === 0) return 0;
    withAddress(bytes, (at) => buffer.write(at, bytes.length)); // SAFETY: the length is that of `bytes`
    session.consume?.(bytes.length);
    this.#readsAhead = session.readAhead !== undefined;
    return bytes.length;
  }

  /** Whether there may be something to read ahead. */
  get readsAhead(): boolean {
    return this.#readsAhead;
  }

  /** Has the device prepare the next piece, while the target still sends the one that it has just read. */
  readAhead(): void {
    this.#readsAhead = false;
    this.#device.v2?.openSession()?.readAhead?.();
  }

  /** write and writev. */
  write(call: Call): number {
    const session = this.#session();
    const buffer = TargetBuffer.of(call);
    const room = session.room?.(buffer.length);
    let length: number;
    if (room === undefined) {
      const piece = bounce.subarray(0, Math.min(buffer.length, PIECE));
      buffer.read(bounceAt, piece.length);
      length = session.write(piece);
    } else {
      withAddress(room, (at) => buffer.read(at, room.length)); // SAFETY: the length is that of `room`
      session.fill?.(room.length);
      ({ length } = room);
    }
    return length;
  }

  /** ioctls of the data fd: `VFIO_MIG_GET_PRECOPY_INFO`. */
  ioctl(call: Call, command: number): number {
    if (command !== VFIO_MIG_GET_PRECOPY_INFO) throw refuse('ENOTTY', `data fd: no ioctl 0x${command.toString(16)}`);
    const session = this.#session();
    const { argsz } = vfio_precopy_info.decode(call.readArg(2, vfio_precopy_info.size));
    if (argsz < vfio_precopy_info.size) throw refuse('EINVAL', `VFIO_MIG_GET_PRECOPY_INFO: argsz ${argsz}`);
    const { initialBytes, dirtyBytes, reinit } = session.precopyInfo();
    call.writeArg(
      2,
      vfio_precopy_info.encode({
        argsz,
        flags: reinit === true ? VFIO_PRECOPY_INFO_REINIT : 0,
        initial_bytes: BigInt(initialBytes),
        dirty_bytes: BigInt(dirtyBytes),
      }),
    );
    return 0;
  }
}

/** A read of a driver that heeds O_NONBLOCK, by whoever has set that flag, does not wait. */
function readOrRefuse(call: Call, session: V2DataSession, into: Uint8Array): number {
  try {
    return session.read(into);
  } catch (error) {
    const { nonblockingErrno } = session;
    if (!isNotReady(error) || nonblockingErrno === undefined) throw error;
    const flags = openFlagsOf(call.tid, call.s32(0)) ?? 0;
    if ((flags & O_NONBLOCK) === 0) throw error;
    throw refuse(nonblockingErrno(), 'data fd: a read would block');
  }
}

// SAFETY: one thread serves all calls, each to its end; the address stays valid as long as the module.
const bounce = new Uint8Array(PIECE);
const bounceAt = addressOf(bounce);
