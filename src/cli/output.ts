import { writeSync } from 'node:fs';
import { ShimError } from '../error.ts';
import { fileError } from '../state-file/errors.ts';
import { sleepUntilReady } from '../wait.ts';

const WRITE = 'write(stdout)';

/**
 * Writes all of a text to stdout before it returns. Not by Node's stream: that loses what a disk has no room for, and tells of
 * a failure when it is too late to act on it. Throws `ERR_FILE`.
 */
export function print(text: string | Uint8Array): void {
  try {
    writeAll(1, text);
  } catch (error) {
    const { message, errno } = fileError('stdout', error) as ShimError;
    throw new ShimError('ERR_FILE', message, { ...(errno && { errno }), syscall: WRITE, cause: error });
  }
}

/** Writes a text to stderr. If that is lost, nobody can be told, and nothing else changes. */
export function say(text: string): void {
  try {
    writeAll(2, text);
  } catch {
    // what is done goes on without a word
  }
}

/** True for a failure of print(). */
export function isLostOutput(error: unknown): error is ShimError {
  return error instanceof ShimError && error.syscall === WRITE;
}

function writeAll(fd: number, text: string | Uint8Array): void {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      // a pipe or terminal that another process has made non-blocking is full: its reader makes room
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      sleepUntilReady();
    }
  }
}
