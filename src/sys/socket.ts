import { struct } from '../abi/struct.ts';
import { iovec } from '../abi/ptrace.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, cString, failedWith, syscall, syscallError, trySyscall, withAddress } from './libc.ts';

export const AF_UNIX = 1;
/** Sockets that carry bytes without boundaries. */
export const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;
export const MSG_CMSG_CLOEXEC = 0x40000000;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_PEEK = 2;
export const MSG_DONTWAIT = 0x40;

/** `struct msghdr` (linux/socket.h, 64-bit). */
export const msghdr = struct('user_msghdr', 56, {
  msg_name: ['u64', 0],
  msg_namelen: ['u32', 8],
  msg_iov: ['u64', 16],
  msg_iovlen: ['u64', 24],
  msg_control: ['u64', 32],
  msg_controllen: ['u64', 40],
  msg_flags: ['u32', 48],
});
/** `struct cmsghdr` with one descriptor. */
const cmsg_rights = struct('cmsghdr', 24, {
  cmsg_len: ['u64', 0],
  cmsg_level: ['s32', 8],
  cmsg_type: ['s32', 12],
  fd: ['s32', 16],
});

/** Two connected sockets, which by default keep messages whole. */
export function socketPair(type = SOCK_SEQPACKET): [OwnedFd, OwnedFd] {
  const fds = new Int32Array(2);
  withAddress(fds, (at) => syscall('socket pair', 'socketpair', AF_UNIX, type | SOCK_CLOEXEC, 0, at));
  return [new OwnedFd(fds[0] ?? -1), new OwnedFd(fds[1] ?? -1)];
}

/** A connection to a socket with a path, for those who need its descriptor, which Node does not tell of its own. */
export function connectTo(path: string): OwnedFd {
  const address = Buffer.from([AF_UNIX, 0, ...cString(path)]); // struct sockaddr_un
  const fd = new OwnedFd(syscall(`connect to ${path}`, 'socket', AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  try {
    withAddress(address, (at) => syscall(`connect to ${path}`, 'connect', fd.number, at, address.length));
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

/**
 * One message in memory, laid out for sendmsg and recvmsg: a number of 8 bytes, and room for a descriptor. SAFETY: whoever uses the
 * header keeps `pointedTo`.
 */
function message() {
  const number = new BigUint64Array(1);
  const control = new Uint8Array(cmsg_rights.size);
  const vector = iovec.encode({ iov_base: BigInt(addressOf(number)), iov_len: 8n });
  const header = msghdr.encode({
    msg_iov: BigInt(addressOf(vector)),
    msg_iovlen: 1n,
    msg_control: BigInt(addressOf(control)),
    msg_controllen: BigInt(control.length),
  });
  return { header, control, number, pointedTo: [number, control, vector] };
}

/** Sends a descriptor: it stays in the message until received, whether or not the receiver has started yet. */
export function sendFd(socket: number, fd: number, number = 0n): void {
  const { header, control, number: payload, pointedTo } = message();
  payload[0] = number;
  cmsg_rights.encode({ cmsg_len: 20n, cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS, fd }, control);
  const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  withAddress(header, (at) => syscall('pass a descriptor', 'sendmsg', socket, at, flags), pointedTo);
}

/** Sends what fits at once, without a signal if nobody is left to read: how many bytes, or a negative errno. */
export function sendNow(socket: number, bytes: Uint8Array): number {
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  return withAddress(bytes, (at) => trySyscall('sendto', socket, at, bytes.length, flags, 0, 0));
}

/** Waits for a descriptor; `undefined` if the other end closed without sending one. */
export function receiveFd(socket: number): OwnedFd | undefined {
  return receive(socket, 0)?.fd;
}

function receive(socket: number, flags: number): { fd: OwnedFd; number: number } | undefined {
  const { header, control, number, pointedTo } = message();
  const length = withAddress(header, (at) => trySyscall('recvmsg', socket, at, MSG_CMSG_CLOEXEC | flags), pointedTo);
  if (failedWith(length, 'EAGAIN')) return undefined;
  if (length < 0) throw syscallError('receive a descriptor', 'recvmsg', -length);
  const { cmsg_len, cmsg_level, cmsg_type, fd } = cmsg_rights.decode(control);
  if (length === 0 || cmsg_len !== 20n || cmsg_level !== SOL_SOCKET || cmsg_type !== SCM_RIGHTS) return undefined;
  return { fd: new OwnedFd(fd), number: Number(number[0]) };
}

/**
 * A place for one open file, with a number beside it: a message in the queue of a socket. It stays there as long as any
 * process has the two ends, without any of them having to do something, so what a process puts there outlives it.
 */
export class FdStore {
  readonly #in: number;
  readonly #out: number;

  /** The descriptors of a socketPair(). */
  constructor(into: number, out: number) {
    this.#in = into;
    this.#out = out;
  }

  /** A descriptor of this process that poll(2) calls writable as long as the place is there. */
  get end(): number {
    return this.#in;
  }

  /** Replaces what is there. A process that is killed meanwhile leaves nothing, or the new file. */
  put(number: number, fd: OwnedFd): void {
    this.clear();
    sendFd(this.#in, fd.number, BigInt(number));
  }

  /** Another descriptor of the file that is there. */
  peek(): { readonly fd: OwnedFd; readonly number: number } | undefined {
    return receive(this.#out, MSG_PEEK | MSG_DONTWAIT);
  }

  clear(): void {
    for (;;) {
      const found = receive(this.#out, MSG_DONTWAIT);
      if (found === undefined) return;
      found.fd.close();
    }
  }
}
