import { fstatSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { iovec } from '../abi/ptrace.ts';
import { POLLOUT, RWF_NOWAIT } from '../abi/fcntl.ts';
import { failedWith, trySyscall, withAddress } from './libc.ts';
import { PollSet } from './poll.ts';
import { sendNow } from './socket.ts';

const EAGAIN = errnoNumber('EAGAIN');

/**
 * A descriptor to log to: writes take what fits at once and never wait, whoever else has the open file and however slowly it is
 * read. Its flags, which others share, stay as they are.
 */
export class Outlet {
  readonly fd: number;
  /** Which file it is. */
  readonly dev: number;
  readonly ino: number;
  readonly kind: 'file' | 'socket' | 'pipe' | 'device';

  constructor(fd: number) {
    const found = fstatSync(fd);
    this.fd = fd;
    this.dev = found.dev;
    this.ino = found.ino;
    this.kind = found.isFile() ? 'file' : found.isSocket() ? 'socket' : found.isFIFO() ? 'pipe' : 'device';
  }

  /** Writes, and returns how many bytes went, or a negative errno: `EAGAIN` if nothing fits now. */
  write(bytes: Uint8Array): number {
    if (this.kind === 'socket') return sendNow(this.fd, bytes);
    return withAddress(bytes, (at) => this.#writeFrom(at, bytes.length));
  }

  #writeFrom(at: number, length: number): number {
    if (this.kind === 'file') return trySyscall('write', this.fd, at, length);
    const vector = iovec.encode({ iov_base: BigInt(at), iov_len: BigInt(length) });
    const written = withAddress(vector, (from) => trySyscall('pwritev2', this.fd, from, 1, -1, -1, RWF_NOWAIT));
    if (!failedWith(written, 'EOPNOTSUPP')) return written;
    return this.#hasRoom() ? trySyscall('write', this.fd, at, length) : -EAGAIN;
  }

  /**
   * For pipes before Linux 6.4, and devices that do not know RWF_NOWAIT: true if there is room for a page, and so for one write,
   * unless another writer takes it in the same moment.
   */
  #hasRoom(): boolean {
    const poll = new PollSet(1);
    poll.set(0, this.fd, POLLOUT);
    return poll.wait(1, 0) && (poll.events(0) & POLLOUT) !== 0;
  }
}
