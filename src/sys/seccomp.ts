import { sock_fprog } from '../abi/bpf.ts';
import { PR_SET_NO_NEW_PRIVS } from '../abi/prctl.ts';
import {
  SECCOMP_ADDFD_FLAG_SEND,
  SECCOMP_ADDFD_FLAG_SETFD,
  SECCOMP_FILTER_FLAG_NEW_LISTENER,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
  SECCOMP_IOCTL_NOTIF_ADDFD,
  SECCOMP_IOCTL_NOTIF_ID_VALID,
  SECCOMP_IOCTL_NOTIF_RECV,
  SECCOMP_IOCTL_NOTIF_SEND,
  SECCOMP_IOCTL_NOTIF_SET_FLAGS,
  SECCOMP_SET_MODE_FILTER,
  SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
  seccomp_notif,
  seccomp_notif_addfd,
  seccomp_notif_resp,
} from '../abi/seccomp.ts';
import { ShimError } from '../error.ts';
import { kernelIsAtLeast } from './kernel.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, failedWith, syscallError, tryIoctl, trySyscall, withAddress } from './libc.ts';

/**
 * Installs a filter on the calling thread and returns the listener of its user notifications. Needs no privilege: it gives
 * up the right to gain any.
 */
export function installFilter(program: Uint8Array): OwnedFd {
  // SAFETY: withAddress() keeps the program, to which `fprog` points, with as many instructions as it has
  const fprog = sock_fprog.encode({ len: program.length / 8, filter: BigInt(addressOf(program)) });
  const noNewPrivs = trySyscall('prctl', PR_SET_NO_NEW_PRIVS, 1);
  if (noNewPrivs < 0) throw syscallError('give up new privileges', 'prctl(PR_SET_NO_NEW_PRIVS)', -noNewPrivs);
  const flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
  const fd = withAddress(fprog, (at) => trySyscall('seccomp', SECCOMP_SET_MODE_FILTER, flags, at), [program]);
  if (fd >= 0) return new OwnedFd(fd);
  if (failedWith(fd, 'EBUSY')) {
    throw new ShimError(
      'ERR_KERNEL_FEATURE',
      'seccomp: this process already runs under a user notification filter (a container or another vfio-shim), and there can be only one',
      { errno: 'EBUSY', syscall: 'seccomp' },
    );
  }
  if (failedWith(fd, 'EINVAL')) {
    throw new ShimError(
      'ERR_KERNEL_FEATURE',
      'seccomp: the kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which came with Linux 5.19',
      { errno: 'EINVAL', syscall: 'seccomp' },
    );
  }
  throw syscallError('install the filter', 'seccomp', -fd);
}

/** What a notification can be answered with. */
export type NotificationReply = Pick<Listener, 'respond' | 'addFd' | 'isValid' | 'goesOn'>;

/** The supervisor's end of user notifications. SAFETY: it references the memory of its addresses, and the supervisor references it. */
export class Listener {
  readonly fd: number;
  readonly #notification: Uint32Array;
  readonly #notificationAt: number;
  readonly #response = new Uint8Array(seccomp_notif_resp.size);
  readonly #responseWords = new Uint32Array(this.#response.buffer);
  readonly #responseAt = addressOf(this.#response);
  readonly #addfd = new Uint8Array(seccomp_notif_addfd.size);
  readonly #addfdAt = addressOf(this.#addfd);
  readonly #id = new BigUint64Array(1);
  readonly #idAt = addressOf(this.#id);
  #wakesHere = false;
  #isElsewhere = false;

  /** `notification`: where receive() puts what it gets; memory of `seccomp_notif.size` bytes. */
  constructor(fd: number, notification: Uint8Array) {
    this.fd = fd;
    this.#notification = new Uint32Array(notification.buffer, notification.byteOffset, seccomp_notif.size / 4);
    this.#notificationAt = addressOf(this.#notification);
  }

  /** Wakes the target on this CPU (Linux 6.6): 8 microseconds a call instead of 60. False if the kernel cannot. */
  wakeOnThisCpu(): boolean {
    this.#wakesHere = tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) >= 0;
    return this.#wakesHere;
  }

  /** Whoever serves goes on after the next answer: its target would wait for this CPU, and another is to run it. */
  goesOn(): void {
    if (this.#wakesHere) this.#isElsewhere = tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 0) >= 0;
  }

  /** receive() ends when no process is left that could make a call (Linux 6.11). Elsewhere, poll the descriptor first. */
  readonly endsWaiting: boolean = kernelIsAtLeast(6, 11);

  /** Waits for a notification; false if its thread died meanwhile, a signal came, or nobody is left. */
  receive(): boolean {
    if (this.#isElsewhere) this.#isElsewhere = !this.wakeOnThisCpu();
    for (let n = 0; n < this.#notification.length; n += 1) this.#notification[n] = 0; // sooner than fill() for so few
    return tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_RECV, this.#notificationAt) >= 0;
  }

  isValid(id: bigint): boolean {
    this.#id[0] = id;
    return tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, this.#idAt) >= 0;
  }

  /** Answers the notification of which these are the 32-bit words. `error` is a negative errno or 0. A target that died meanwhile is no failure. */
  respond(notification: Uint32Array, value: number, error: number, flags = 0): void {
    const words = this.#responseWords; // id, val, error, flags: seccomp_notif_resp
    words[0] = notification[0] ?? 0;
    words[1] = notification[1] ?? 0;
    words[2] = value % 2 ** 32;
    words[3] = value / 2 ** 32;
    words[4] = error;
    words[5] = flags;
    tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_SEND, this.#responseAt);
  }

  /** Gives the target a descriptor; with `send` it is also the answer. Returns its number there, or a negative errno. */
  addFd(id: bigint, source: number, options: { send?: boolean; at?: number; closeOnExec?: number } = {}): number {
    const { send = false, at, closeOnExec = 0 } = options;
    seccomp_notif_addfd.encode(
      {
        id,
        flags: (send ? SECCOMP_ADDFD_FLAG_SEND : 0) | (at === undefined ? 0 : SECCOMP_ADDFD_FLAG_SETFD),
        srcfd: source,
        newfd: at ?? 0,
        newfd_flags: closeOnExec,
      },
      this.#addfd,
    );
    return tryIoctl(this.fd, SECCOMP_IOCTL_NOTIF_ADDFD, this.#addfdAt);
  }
}
