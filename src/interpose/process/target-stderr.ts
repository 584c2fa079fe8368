import { isatty } from 'node:tty';
import { errnoNumber } from '../../abi/errno.ts';
import { F_GETFL, O_ACCMODE, O_WRONLY } from '../../abi/fcntl.ts';
import { OwnedFd } from '../../sys/fd.ts';
import { failedWith, trySyscall } from '../../sys/libc.ts';
import { Outlet } from '../../sys/outlet.ts';
import { takeFd } from '../../sys/pidfd.ts';
import type { Sink } from '../run/log.ts';
import type { FileIdentity, Plan } from '../run/plan.ts';
import { LogFile } from './log-file.ts';

const STDERR = 2;
const EBADF = errnoNumber('EBADF');

/** The file to which keeper and supervisor log. */
export function logOf({ log, fds, stderr }: Plan): Sink {
  if (log !== undefined) return new LogFile(log);
  return fds.log === undefined ? new TargetStderr(fds.target, stderr) : new Outlet(fds.log);
}

/**
 * The target's stderr as it is at the moment of each line: taken by pidfd_getfd and given back. Who waits for its end, as
 * libvirt does while a VMM makes a daemon of itself, waits for no process but the target's.
 */
class TargetStderr implements Sink {
  readonly #target: number;
  readonly #launched: FileIdentity;

  /** `target`: a pidfd of the target. `launched`: the file that was its stderr in the beginning. */
  constructor(target: number, launched: FileIdentity) {
    this.#target = target;
    this.#launched = launched;
  }

  write(line: Uint8Array, caller: number): number {
    const number = this.#take(caller);
    if (number < 0) return number;
    using fd = new OwnedFd(number);
    const outlet = new Outlet(fd.number);
    return this.#isForText(outlet) ? outlet.write(line) : -EBADF;
  }

  /** The target's descriptor, or, if the first process has ended, that of the one which called. */
  #take(caller: number): number {
    const number = takeStderr(this.#target);
    return failedWith(number, 'ESRCH') && caller !== 0 ? takeFd(caller, STDERR) : number;
  }

  /**
   * A program may close its stderr, and get the number again for something else: a disk, a device, a connection. Text goes
   * to the file that was there in the beginning, and to what looks like another one for text.
   */
  #isForText({ fd, dev, ino, kind }: Outlet): boolean {
    if (dev === this.#launched.dev && ino === this.#launched.ino) return true;
    if (kind === 'device') return isatty(fd);
    return kind !== 'socket' && (trySyscall('fcntl', fd, F_GETFL) & O_ACCMODE) === O_WRONLY;
  }
}

function takeStderr(pidfd: number): number {
  return trySyscall('pidfd_getfd', pidfd, STDERR, 0);
}
