import { fchmodSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { O_NONBLOCK } from '../abi/fcntl.ts';
import { iovec } from '../abi/ptrace.ts';
import { struct } from '../abi/struct.ts';
import { ShimError } from '../error.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, cString, failedWith, syscall, syscallError, trySyscall, withAddress } from './libc.ts';
import {
  AF_UNIX,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  msghdr,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from './socket.ts';

/*
 * UNIX sockets that carry bytes, and descriptors beside them (unix(7)): Node's own drop descriptors. No call here waits.
 */

/** The most descriptors that one sendmsg carries (include/net/scm.h: SCM_MAX_FD). */
export const SCM_MAX_FD = 253;

/** What `sun_path` holds, its zero included (linux/un.h). */
const PATH_SIZE = 108;
/** How many clients may wait to be accepted. */
const BACKLOG = 16;

/** `struct cmsghdr` (linux/socket.h, 64-bit), up to the descriptors; one begins at each multiple of 8. */
const cmsghdr = struct('cmsghdr', 16, { cmsg_len: ['u64', 0], cmsg_level: ['s32', 8], cmsg_type: ['s32', 12] });
const FD_SIZE = 4;

/** `struct sockaddr_un`. Throws `ERR_ARGUMENT` for a path that it does not hold. */
function addressOfPath(path: string): Uint8Array {
  const name = cString(path);
  if (name.length > PATH_SIZE || path === '') {
    const limit = PATH_SIZE - 1;
    throw new ShimError(
      'ERR_ARGUMENT',
      `socket ${path}: a path of ${name.length - 1} bytes; 1 to ${limit} are allowed`,
    );
  }
  return Buffer.from([AF_UNIX, 0, ...name]);
}

/**
 * A socket that listens at a path, which must not exist. With `mode`, its file has that from the first moment on, less the umask: bind(2) makes
 * it with the mode of the socket (net/unix/af_unix.c, Linux 6.12: unix_bind_bsd).
 */
export function listenAt(path: string, mode?: number): OwnedFd {
  const doing = `listen at ${path}`;
  const address = addressOfPath(path);
  const fd = streamSocket(doing);
  try {
    if (mode !== undefined) fchmodSync(fd.number, mode);
    withAddress(address, (at) => syscall(doing, 'bind', fd.number, at, address.length));
    syscall(doing, 'listen', fd.number, BACKLOG);
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

/** A connection to the socket at a path; `undefined` if more clients wait there than it takes. */
export function connectNow(path: string): OwnedFd | undefined {
  const doing = `connect to ${path}`;
  const address = addressOfPath(path);
  const fd = streamSocket(doing);
  const result = withAddress(address, (at) => trySyscall('connect', fd.number, at, address.length));
  if (result >= 0) return fd;
  fd.close();
  if (failedWith(result, 'EAGAIN') || failedWith(result, 'EINTR')) return undefined;
  throw syscallError(doing, 'connect', -result);
}

/** The next client that waits; `undefined` if none does. */
export function acceptFrom(listener: number): OwnedFd | undefined {
  const result = trySyscall('accept4', listener, 0, 0, SOCK_CLOEXEC);
  if (result >= 0) return new OwnedFd(result);
  if (failedWith(result, 'ECONNABORTED') || failedWith(result, 'EAGAIN') || failedWith(result, 'EINTR'))
    return undefined;
  throw syscallError('accept a client', 'accept4', -result);
}

/** It does not wait: not even for a server that has more clients than it takes. */
function streamSocket(doing: string): OwnedFd {
  return new OwnedFd(syscall(doing, 'socket', AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | O_NONBLOCK, 0));
}

// SAFETY: they live as long as this module, and one thread uses them, to the end of each call
const control = new Uint8Array(cmsghdr.size + SCM_MAX_FD * FD_SIZE + 4);
const controlAt = addressOf(control);
/** The most pieces of one message. */
const MOST_PIECES = 3;
/** `struct iovec` of each, as 32-bit words: base low and high, length low and high. */
const vectors = new Uint32Array((MOST_PIECES * iovec.size) / 4);
const vectorsAt = addressOf(vectors);
/** `struct msghdr`, as 32-bit words. */
const header = new Uint32Array(msghdr.size / 4);
const headerAt = addressOf(header);
const { msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags } = msghdr.fields;
putAddress(header, msg_iov[1] / 4, vectorsAt);

/**
 * Sends what fits at once of up to three pieces, with descriptors beside the first byte: how many bytes went, or a negative errno. The
 * descriptors have gone if any byte has.
 */
export function sendPieces(socket: number, pieces: readonly Uint8Array[], fds: readonly number[]): number {
  if (pieces.length > MOST_PIECES || fds.length > SCM_MAX_FD) return -errnoNumber('E2BIG');
  fillVectors(pieces);
  const size = fds.length === 0 ? 0 : cmsghdr.size + fds.length * FD_SIZE;
  if (size > 0) {
    cmsghdr.encode({ cmsg_len: BigInt(size), cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS }, control);
    const view = new DataView(control.buffer, control.byteOffset);
    for (const [n, fd] of fds.entries()) view.setInt32(cmsghdr.size + n * FD_SIZE, fd, true);
  }
  fillHeader(pieces.length, size);
  // SAFETY: `pieces` is referenced until the call has returned
  return withAddress(header, () => trySyscall('sendmsg', socket, headerAt, MSG_DONTWAIT | MSG_NOSIGNAL), pieces);
}

export interface Received {
  /** 0 if the other end has closed. */
  readonly length: number;
  readonly fds: readonly OwnedFd[];
  /** This process has no room for all descriptors that were sent: the others are gone. */
  readonly isCut: boolean;
}

/**
 * Receives at most as many bytes as up to three pieces have room for, and the descriptors beside them: `undefined` if there are none yet. Of
 * bytes that were sent by different calls, descriptors came with the last: who asks for no more than one message has its own. `flags`: more
 * of recvmsg(2).
 */
export function receivePieces(socket: number, pieces: readonly Uint8Array[], flags = 0): Received | undefined {
  fillVectors(pieces);
  fillHeader(pieces.length, control.length);
  const all = MSG_CMSG_CLOEXEC | MSG_DONTWAIT | flags;
  // SAFETY: `pieces` is referenced until the call has returned
  const length = withAddress(header, () => trySyscall('recvmsg', socket, headerAt, all), pieces);
  if (failedWith(length, 'EAGAIN') || failedWith(length, 'EINTR')) return undefined;
  if (length < 0) throw syscallError('receive', 'recvmsg', -length);
  const flagged = header[msg_flags[1] / 4] ?? 0;
  return { length, fds: descriptors(header[msg_controllen[1] / 4] ?? 0), isCut: (flagged & MSG_CTRUNC) !== 0 };
}

const MSG_CTRUNC = 8;

/** SAFETY: the caller references `pieces` until the call has returned. Throws RangeError for more than there is room for. */
function fillVectors(pieces: readonly Uint8Array[]): void {
  if (pieces.length > MOST_PIECES) throw new RangeError(`a message in ${pieces.length} pieces`);
  for (let n = 0; n < pieces.length; n += 1) {
    const piece = pieces[n] ?? NOTHING;
    putAddress(vectors, 4 * n, addressOf(piece));
    vectors[4 * n + 2] = piece.length;
    vectors[4 * n + 3] = Math.floor(piece.length / 2 ** 32);
  }
}

function putAddress(into: Uint32Array, word: number, address: number): void {
  into[word] = address;
  into[word + 1] = Math.floor(address / 2 ** 32);
}

function fillHeader(count: number, controlSize: number): void {
  header[msg_iovlen[1] / 4] = count;
  putAddress(header, msg_control[1] / 4, controlSize === 0 ? 0 : controlAt);
  header[msg_controllen[1] / 4] = controlSize;
  header[msg_flags[1] / 4] = 0;
}

const NOTHING = new Uint8Array(0);

const NONE: readonly OwnedFd[] = [];

/** The descriptors of all control messages, which are this process's now. */
function descriptors(size: number): readonly OwnedFd[] {
  if (size === 0) return NONE;
  const fds: OwnedFd[] = [];
  const view = new DataView(control.buffer, control.byteOffset);
  for (let at = 0; at + cmsghdr.size <= size;) {
    const { cmsg_len, cmsg_level, cmsg_type } = cmsghdr.decode(control, at);
    const end = Math.min(at + Number(cmsg_len), size);
    if (cmsg_level === SOL_SOCKET && cmsg_type === SCM_RIGHTS) {
      for (let fd = at + cmsghdr.size; fd + FD_SIZE <= end; fd += FD_SIZE)
        fds.push(new OwnedFd(view.getInt32(fd, true)));
    }
    at += Math.max(cmsghdr.size, Math.ceil(Number(cmsg_len) / 8) * 8);
  }
  return fds;
}

/** `SO_SNDBUF` (asm-generic/socket.h). */
const SO_SNDBUF = 7;

/**
 * Has a socket take so many bytes at once, if the host lets it (net.core.wmem_max): who sends them goes on while they are read. With what the
 * kernel has by default, 208 KiB, a sender waits for its peer.
 */
export function makeRoomToSend(socket: number, bytes: number): void {
  const value = Int32Array.of(bytes); // the kernel doubles it, for what it keeps beside the bytes
  withAddress(value, (at) => trySyscall('setsockopt', socket, SOL_SOCKET, SO_SNDBUF, at, value.byteLength));
}

/** `SO_TYPE`, `SO_ACCEPTCONN` and `SO_DOMAIN` (asm-generic/socket.h). */
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;

/** True for a descriptor of a UNIX socket that carries bytes and does not listen: what vfio-user is spoken over. */
export function carriesMessages(fd: number): boolean {
  const option = (name: number): number | undefined => {
    const value = new Int32Array(1);
    const size = Uint32Array.of(value.byteLength);
    const result = withAddress(value, (at) =>
      withAddress(size, (sizeAt) => trySyscall('getsockopt', fd, SOL_SOCKET, name, at, sizeAt)),
    );
    return result < 0 ? undefined : value[0];
  };
  return option(SO_DOMAIN) === AF_UNIX && option(SO_TYPE) === SOCK_STREAM && option(SO_ACCEPTCONN) === 0;
}

/** `SO_PEERCRED` (asm-generic/socket.h), and what it gives: `struct ucred` (linux/socket.h). */
const SO_PEERCRED = 17;
const ucred = struct('ucred', 12, { pid: ['s32', 0], uid: ['u32', 4], gid: ['u32', 8] });

/** The process that has connected to a socket, or was there when a pair was made; 0 if it is of another PID namespace. */
export function peerProcess(socket: number): number {
  const found = new Uint8Array(ucred.size);
  const size = Uint32Array.of(found.length);
  withAddress(found, (at) =>
    withAddress(size, (sizeAt) =>
      syscall('look who has connected', 'getsockopt', socket, SOL_SOCKET, SO_PEERCRED, at, sizeAt),
    ),
  );
  return ucred.decode(found).pid;
}
