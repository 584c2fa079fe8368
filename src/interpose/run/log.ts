import { Outlet } from '../../sys/outlet.ts';

/*
 * What launcher, keeper and supervisor have to say besides their work: a line each. It never throws and never waits, as
 * the target's calls would wait with it. What cannot be written is counted, and the number told when that works again.
 */

/** What one write to a pipe keeps whole (linux/limits.h: PIPE_BUF). */
const LONGEST = 4096;

/** Where lines go: how many bytes went, or a negative errno. `caller` is the thread whose call is served, 0 for none. */
export interface Sink {
  write(line: Uint8Array, caller: number): number;
}

/** Until logTo(), lines go to this process's own stderr: the launcher's, and the tests'. */
let sink: Sink = { write: (line) => new Outlet(2).write(line) };
let dropped = 0;
let caller = 0;

export function logTo(other: Sink): void {
  sink = other;
}

/** The thread whose call is being served, 0 for none. */
export function serving(tid: number): void {
  caller = tid;
}

export function warn(message: string): void {
  if (dropped > 0 && !write(`${dropped} messages were dropped`)) {
    dropped += 1;
    return;
  }
  dropped = write(message) ? 0 : 1;
}

function write(message: string): boolean {
  try {
    const line = Buffer.from(`vfio-shim: ${message}\n`);
    if (line.length <= LONGEST) return sink.write(line, caller) > 0;
    line[LONGEST - 1] = 0x0a;
    return sink.write(line.subarray(0, LONGEST), caller) > 0;
  } catch {
    return false; // as good as an errno: the file could not even be looked at
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
