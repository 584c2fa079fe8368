import { openSync, readFileSync, readlinkSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { F_DUPFD, F_DUPFD_CLOEXEC, F_GETFL } from '../abi/fcntl.ts';
import { O_ACCMODE, O_APPEND, O_CLOEXEC, O_NONBLOCK, O_RDONLY, O_WRONLY } from '../abi/fcntl.ts';
import { struct } from '../abi/struct.ts';
import { VFIO_MIG_GET_PRECOPY_INFO } from '../abi/vfio.ts';
import { vfio_precopy_info } from '../abi/vfio-v2.ts';
import { OwnedFd } from '../sys/fd.ts';
import { inodeOf, inodeOfOwn } from '../sys/file.ts';
import { addressOf, arch } from '../sys/libc.ts';
import { createSharedMemory } from '../sys/memory.ts';
import { readProcessMemoryTo, writeProcessMemoryFrom } from '../sys/process-memory.ts';
import type { Answers } from '../sys/seccomp.ts';
import type { V2DataSession, V2Device } from '../v2/device.ts';
import { V2 } from '../v2/states.ts';
import { CONTINUE, refuse, type Call } from './call.ts';
import type { FdWindow } from './plan.ts';

/*
 * Stand-ins for the data fds of a v2 device. The target gets a descriptor in a reserved window of numbers, of a file that
 * names itself and that can neither be read nor written: the filter traps the calls on these numbers, and they are served
 * here. One that ends up elsewhere (passed over a socket) fails with EBADF and never ends a stream.
 */

const FILE_NAME = 'vfio-shim-migration';
/** The most that one call moves, in bytes: what QEMU 10 asks for. */
const PIECE = 1024 * 1024;
const numbers = arch.syscalls;
const dup2 = 'dup2' in numbers ? numbers.dup2 : -1;

const data_fd = struct('data_fd', 64, {
  /** The file of the session that goes on; its inode is what tells it from those of earlier ones. */
  inode: ['count', 0],
});

/** What a device's data fd needs to know of it. */
export interface DataFdDevice {
  readonly v2: V2Device | undefined;
  moved(direction: 'out' | 'in', bytes: number): void;
}

/** The data fds of one device. */
export class DataFds {
  readonly #device: DataFdDevice;
  readonly #window: FdWindow;
  readonly #my: ReturnType<typeof data_fd.view>;
  /** Bytes that were read for a target whose buffer then could not be written: the next read gets them. */
  #unread: Uint8Array | undefined;
  #readsAhead = false;

  constructor(device: DataFdDevice, window: FdWindow, state: Uint8Array) {
    this.#device = device;
    this.#window = window;
    this.#my = data_fd.view(state);
  }

  get inode(): number {
    return this.#my.inode;
  }

  /** Gives the target a data fd for a session that has just begun. */
  open(call: Call, listener: Answers): number {
    this.#unread = undefined;
    using file = createSharedMemory(FILE_NAME, 0);
    this.#my.inode = inodeOfOwn(file.number);
    const path = `/proc/self/fd/${file.number}`;
    return give(call, listener, this.#window, path, this.#isResuming() ? O_RDONLY : O_WRONLY, true);
  }

  #isResuming(): boolean {
    return this.#device.v2?.getState() === V2.RESUMING;
  }

  #session(): V2DataSession {
    const session = this.#device.v2?.openSession();
    if (session === undefined) throw refuse('ENODEV', 'data fd: its session has ended');
    return session;
  }

  read(call: Call): number {
    const session = this.#session();
    const unread = this.#unread;
    const count = Math.min(call.count(2), unread?.length ?? PIECE);
    if (count === 0) {
      if (this.#isResuming()) throw refuse('EBADF', 'data fd: read of a session that resumes');
      return 0;
    }
    const shown = unread === undefined ? session.shown?.(count) : undefined;
    if (shown !== undefined) return this.#readShown(call, session, shown);
    if (unread !== undefined) bounce.set(unread);
    const length = unread === undefined ? session.read(bounce.subarray(0, count)) : count;
    try {
      writeProcessMemoryFrom(call.tid, call.count(1), bounceAt, length);
    } catch (error) {
      this.#unread = unread ?? (length > 0 ? bounce.slice(0, length) : undefined);
      throw error;
    }
    const rest = unread?.subarray(count);
    this.#unread = rest !== undefined && rest.length > 0 ? rest : undefined;
    if (length > 0) this.#device.moved('out', length);
    return length;
  }

  /** Bytes that lie where they can be taken from: they count as read once the target has them. */
  #readShown(call: Call, session: V2DataSession, shown: Uint8Array): number {
    if (shown.length === 0) return 0;
    writeProcessMemoryFrom(call.tid, call.count(1), addressOf(shown), shown.length);
    const length = session.read(shown);
    this.#device.moved('out', length);
    this.#readsAhead = session.readAhead !== undefined;
    return length;
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

  write(call: Call): number {
    const session = this.#session();
    const count = call.count(2);
    const room = session.room?.(count);
    const piece = room ?? bounce.subarray(0, Math.min(count, PIECE));
    readProcessMemoryTo(call.tid, call.count(1), room === undefined ? bounceAt : addressOf(room), piece.length);
    const length = session.write(piece);
    if (length > 0) this.#device.moved('in', length);
    return length;
  }

  /** ioctls of the data fd: `VFIO_MIG_GET_PRECOPY_INFO`. */
  ioctl(call: Call, command: number): number {
    if (command !== VFIO_MIG_GET_PRECOPY_INFO) throw refuse('ENOTTY', `data fd: no ioctl 0x${command.toString(16)}`);
    const session = this.#session();
    if (this.#isResuming()) throw refuse('ENOTTY', 'data fd: no precopy info while resuming');
    const { argsz } = vfio_precopy_info.decode(call.readArg(2, vfio_precopy_info.size));
    if (argsz < vfio_precopy_info.size) throw refuse('EINVAL', `VFIO_MIG_GET_PRECOPY_INFO: argsz ${argsz}`);
    const { initialBytes, dirtyBytes } = session.precopyInfo();
    const info = { argsz, flags: 0, initial_bytes: BigInt(initialBytes), dirty_bytes: BigInt(dirtyBytes) };
    call.writeArg(2, vfio_precopy_info.encode(info));
    return 0;
  }
}

// SAFETY: one thread serves all calls, each to its end; the address stays valid as long as the module.
const bounce = new Uint8Array(PIECE);
const bounceAt = addressOf(bounce);

/** True where a descriptor of the target is a stand-in, of whichever session. */
export function isStandIn(tid: number, fd: number): boolean {
  try {
    return readlinkSync(`/proc/${tid}/fd/${fd}`).startsWith(`/memfd:${FILE_NAME}`);
  } catch {
    return false;
  }
}

/** dup, dup2, dup3 and fcntl on a stand-in: its duplicates have to be where calls on them are seen. */
export function duplicate(call: Call, listener: Answers, window: FdWindow): number {
  const fd = call.s32(0);
  const path = `/proc/${call.tid}/fd/${fd}`;
  const flags = flagsOf(call.tid, fd);
  switch (call.nr) {
    case numbers.dup:
      return give(call, listener, window, path, flags, false);
    case numbers.fcntl:
      if (call.u32(1) === F_GETFL) return asOfDataFd(flags);
      if (call.u32(1) !== F_DUPFD && call.u32(1) !== F_DUPFD_CLOEXEC) return CONTINUE;
      return give(call, listener, window, path, flags, call.u32(1) === F_DUPFD_CLOEXEC);
    case numbers.dup3:
    case dup2: {
      const wanted = call.s32(1);
      if (wanted === fd) return CONTINUE;
      if (wanted < window.first || wanted > window.last) {
        throw refuse('EINVAL', `data fd: a duplicate has to lie between ${window.first} and ${window.last}`);
      }
      const closeOnExec = call.nr === numbers.dup3 && (call.u32(2) & O_CLOEXEC) !== 0;
      return giveAt(call, listener, path, flags, closeOnExec, wanted);
    }
    default:
      return CONTINUE;
  }
}

/** How a stand-in's file is open, as far as its duplicates are to be open so too. Throws `EBADF`. */
function flagsOf(tid: number, fd: number): number {
  try {
    const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/${tid}/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0';
    return Number.parseInt(flags, 8) & (O_ACCMODE | O_APPEND | O_NONBLOCK);
  } catch {
    throw refuse('EBADF', 'data fd: closed');
  }
}

/** The flags that the data fd would have: the access mode of a stand-in's file is the opposite of the session's. */
function asOfDataFd(flags: number): number {
  return (flags & ~O_ACCMODE) | ((flags & O_ACCMODE) === O_WRONLY ? O_RDONLY : O_WRONLY);
}

/** Opens a stand-in's file anew and gives it to the target at the first free number of the window. */
function give(
  call: Call,
  listener: Answers,
  window: FdWindow,
  path: string,
  flags: number,
  closeOnExec: boolean,
): number {
  for (let fd = window.first; fd <= window.last; fd += 1) {
    if (inodeOf(call.tid, fd) === undefined) return giveAt(call, listener, path, flags, closeOnExec, fd);
  }
  throw refuse('EMFILE', `data fd: all numbers from ${window.first} to ${window.last} are taken`);
}

function giveAt(call: Call, listener: Answers, path: string, flags: number, closeOnExec: boolean, at: number): number {
  using file = new OwnedFd(openSync(path, flags | O_CLOEXEC));
  const result = listener.addFd(call.id, file.number, { at, closeOnExec: closeOnExec ? O_CLOEXEC : 0 });
  if (result === -errnoNumber('EBADF')) {
    throw refuse('EMFILE', `data fd: RLIMIT_NOFILE of the target is below ${at + 1}`);
  }
  if (result < 0) throw refuse('EMFILE', 'data fd: the target takes no descriptor');
  return at;
}
