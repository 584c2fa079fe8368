import {
  VFIO_USER_F_ERROR,
  VFIO_USER_F_NO_REPLY,
  VFIO_USER_F_TYPE_COMMAND,
  VFIO_USER_F_TYPE_MASK,
  VFIO_USER_F_TYPE_REPLY,
  vfio_user_header,
} from '../../abi/vfio-user.ts';
import { errnoName, errnoNumber } from '../../abi/errno.ts';
import type { ErrnoName } from '../../abi/errno.ts';
import { ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';

/** A message that was received. Whoever has it closes the descriptors that nobody has taken. */
export interface Message {
  readonly id: number;
  /** `VFIO_USER_*`, or any other number. */
  readonly command: number;
  readonly isReply: boolean;
  /** The sender of a command wants no reply. */
  readonly noReply: boolean;
  /** Why a command has failed, if this is its reply and it has. */
  readonly errno: ErrnoName | undefined;
  /** But for what `data` has. */
  readonly body: Uint8Array;
  /** The end of the body, if there was a place for it. */
  readonly data?: Uint8Array | undefined;
  /** A place is empty once its descriptor was taken. */
  readonly fds: (OwnedFd | undefined)[];
}

/** What a header says of the message that it begins. */
export interface Header extends Pick<Message, 'id' | 'command' | 'isReply' | 'noReply' | 'errno'> {
  /** Bytes of the body. */
  readonly length: number;
}

/** Where the body of a message belongs behind its first `head` bytes. */
export interface Place {
  readonly head: number;
  readonly data: Uint8Array;
}

export const HEADER_SIZE = vfio_user_header.size;

/**
 * Reads a header. Throws `EPROTO` for one that cannot be: then nobody knows where the next message begins.
 * `limit`: the most bytes that a body may have.
 */
export function decodeHeader(bytes: Uint8Array, limit: number): Header {
  const { msg_id: id, cmd: command, msg_size, flags, error_no } = vfio_user_header.decode(bytes);
  const type = flags & VFIO_USER_F_TYPE_MASK;
  if (type !== VFIO_USER_F_TYPE_COMMAND && type !== VFIO_USER_F_TYPE_REPLY) {
    throw protocolError(`message ${id} has type ${type}`);
  }
  if (msg_size < HEADER_SIZE || msg_size - HEADER_SIZE > limit) {
    throw protocolError(`message ${id} of command ${command} says that it has ${msg_size} bytes`);
  }
  const isReply = type === VFIO_USER_F_TYPE_REPLY;
  return {
    id,
    command,
    isReply,
    noReply: !isReply && (flags & VFIO_USER_F_NO_REPLY) !== 0,
    errno: isReply && (flags & VFIO_USER_F_ERROR) !== 0 ? (errnoName(error_no) ?? 'EINVAL') : undefined,
    length: msg_size - HEADER_SIZE,
  };
}

/** The header of a message to be sent. */
export function encodeHeader(
  { id, command, isReply, noReply, errno }: Omit<Header, 'length'>,
  length: number,
  into?: Uint8Array,
): Uint8Array {
  const flags =
    (isReply ? VFIO_USER_F_TYPE_REPLY : VFIO_USER_F_TYPE_COMMAND) |
    (noReply ? VFIO_USER_F_NO_REPLY : 0) |
    (errno === undefined ? 0 : VFIO_USER_F_ERROR);
  const error_no = errno === undefined ? 0 : errnoNumber(errno);
  return vfio_user_header.encode({ msg_id: id, cmd: command, msg_size: HEADER_SIZE + length, flags, error_no }, into);
}

export function closeFds({ fds }: Pick<Message, 'fds'>): void {
  for (const fd of fds) fd?.close();
}

/** Takes a descriptor out of a message; `undefined` if there is none in that place. */
export function takeFd({ fds }: Pick<Message, 'fds'>, place = 0): OwnedFd | undefined {
  const fd = fds[place];
  fds[place] = undefined;
  return fd;
}

/** The peer does not keep to the protocol: the connection cannot go on. */
export function protocolError(what: string): ShimError {
  return new ShimError('ERR_DEVICE', `vfio-user: ${what}`, { errno: 'EPROTO' });
}
