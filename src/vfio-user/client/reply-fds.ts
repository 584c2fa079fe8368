import { VFIO_USER_DEVICE_GET_REGION_INFO, VFIO_USER_DEVICE_GET_REGION_IO_FDS } from '../../abi/vfio-user.ts';
import { isMemoryFile } from '../../sys/file.ts';
import { closeFds, protocolError, type Message } from '../wire/message.ts';

/*
 * Descriptors come with replies to three commands alone (docs/vfio-user.rst): a region's file, what a part of a region is written to by, and the
 * twin socket of VERSION, which has been taken by then.
 */

/**
 * Closes the descriptors of a reply that has none to have, or that says that the command has failed, and any if the client takes none. Throws `EPROTO` for more than there can be,
 * or for one of another kind: the descriptors of the reply are closed then. `most`: as many as the client takes.
 */
export function siftReplyFds(reply: Message, command: number, most: number): void {
  const isIoFds = command === VFIO_USER_DEVICE_GET_REGION_IO_FDS;
  const isFile = command === VFIO_USER_DEVICE_GET_REGION_INFO;
  if (reply.errno !== undefined || most === 0 || !(isFile || isIoFds)) {
    closeFds(reply);
    reply.fds.length = 0;
    return;
  }
  const count = reply.fds.length;
  const limit = isFile ? 1 : most;
  const isOther = isFile && reply.fds.some((fd) => fd !== undefined && !isMemoryFile(fd.number));
  if (count <= limit && !isOther) return;
  closeFds(reply);
  reply.fds.length = 0;
  const what = isOther ? 'a descriptor that is none of a file' : `${count} descriptors, where ${limit} can be`;
  throw protocolError(`the server answers command ${command} with ${what}`);
}
