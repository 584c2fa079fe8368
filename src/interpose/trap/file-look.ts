import { hasErrno } from '../../error.ts';
import { inodeOf } from '../../sys/file.ts';
import { callTime } from './call-time.ts';
import { fileNumber } from './polled-file.ts';
import { messageOf, warn } from '../run/log.ts';

/*
 * Which file a descriptor of the target is. VMMs make many small accesses on one descriptor, and the question costs as much as the
 * rest of a call, so for these an answer holds for a moment. It says which device or session is meant, never what somebody may do:
 * a target that puts another file in the place of its own meanwhile deceives itself. If we are the ones who do so, it is forgotten.
 */

/** How long an answer holds, in milliseconds; longer if the access names its device by its offset too. */
const HOLDS = 1;
const HOLDS_AT_OFFSET = 20;

const last = { tid: 0, fd: -1, inode: undefined as number | undefined, at: -Infinity };
let hasWarned = false;

/** As inodeOf(), and as fileNumber(). A process that may not be looked into is told so by its calls, and the operator here, once. */
export function fileNow(tid: number, fd: number): number | undefined {
  forgetFile();
  try {
    last.inode = inodeOf(tid, fd, fileNumber);
  } catch (error) {
    if (!hasErrno(error, 'ESRCH') && !hasWarned) {
      hasWarned = true;
      warn(`cannot look into a process, so its calls on devices fail: ${messageOf(error)}`);
    }
    throw error;
  }
  last.tid = tid;
  last.fd = fd;
  last.at = callTime();
  return last.inode;
}

/** As fileNow(), or what that said a moment ago. */
export function fileOf(tid: number, fd: number): number | undefined {
  return isKnown(tid, fd, HOLDS) ? last.inode : fileNow(tid, fd);
}

/** Whether a descriptor is this file, or was a moment ago: for an offset that only this file has. That it was another says nothing. */
export function isFile(tid: number, fd: number, inode: number): boolean {
  return (last.inode === inode && isKnown(tid, fd, HOLDS_AT_OFFSET)) || fileNow(tid, fd) === inode;
}

/** The target is given a descriptor, which may get the number of one that was looked at. */
export function forgetFile(): void {
  last.at = -Infinity;
}

function isKnown(tid: number, fd: number, holds: number): boolean {
  return tid === last.tid && fd === last.fd && callTime() - last.at < holds;
}
