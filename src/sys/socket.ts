import { struct } from '../abi/struct.ts';
import { iovec } from '../abi/ptrace.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, syscall } from './libc.ts';

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_NOSIGNAL = 0x4000;

/** `struct msghdr` and `struct cmsghdr` with one descriptor (linux/socket.h, 64-bit). */
const msghdr = struct('user_msghdr', 56, {
  msg_name: ['u64', 0],
  msg_namelen: ['u32', 8],
  msg_iov: ['u64', 16],
  msg_iovlen: ['u64', 24],
  msg_control: ['u64', 32],
  msg_controllen: ['u64', 40],
  msg_flags: ['u32', 48],
});
const cmsg_rights = struct('cmsghdr', 24, {
  cmsg_len: ['u64', 0],
  cmsg_level: ['s32', 8],
  cmsg_type: ['s32', 12],
  fd: ['s32', 16],
});

/** Two connected sockets that keep messages whole. */
export function socketPair(): [OwnedFd, OwnedFd] {
  const fds = new Int32Array(2);
  syscall('socket pair', 'socketpair', AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, addressOf(fds));
  return [new OwnedFd(fds[0] ?? -1), new OwnedFd(fds[1] ?? -1)];
}

/** One message in memory, laid out for sendmsg and recvmsg: a byte, and room for a descriptor. */
function message(): { header: Uint8Array; control: Uint8Array; keep: Uint8Array[] } {
  const byte = new Uint8Array(1);
  const control = new Uint8Array(cmsg_rights.size);
  const vector = iovec.encode({ iov_base: BigInt(addressOf(byte)), iov_len: 1n });
  const header = msghdr.encode({
    msg_iov: BigInt(addressOf(vector)),
    msg_iovlen: 1n,
    msg_control: BigInt(addressOf(control)),
    msg_controllen: BigInt(control.length),
  });
  return { header, control, keep: [byte, vector] };
}

/** Sends a descriptor: it stays in the message until received, whether or not the receiver has started yet. */
export function sendFd(socket: number, fd: number): void {
  const { header, control, keep } = message();
  cmsg_rights.encode({ cmsg_len: 20n, cmsg_level: SOL_SOCKET, cmsg_type: SCM_RIGHTS, fd }, control);
  syscall('pass a descriptor', 'sendmsg', socket, addressOf(header), MSG_NOSIGNAL);
  keep.length = 0;
}

/** Waits for a descriptor; `undefined` where the other end closed without sending one. */
export function receiveFd(socket: number): OwnedFd | undefined {
  const { header, control, keep } = message();
  const length = syscall('receive a descriptor', 'recvmsg', socket, addressOf(header), MSG_CMSG_CLOEXEC);
  keep.length = 0;
  const { cmsg_len, cmsg_level, cmsg_type, fd } = cmsg_rights.decode(control);
  if (length === 0 || cmsg_len !== 20n || cmsg_level !== SOL_SOCKET || cmsg_type !== SCM_RIGHTS) return undefined;
  return new OwnedFd(fd);
}
