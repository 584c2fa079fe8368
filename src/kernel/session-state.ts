import { struct } from '../abi/struct.ts';

/** What a kernel device's object remembers, in memory that a successor process may go on from. */
export const kernel_state = struct('kernel_state', 64, {
  /** Counts sessions. */
  session: ['count', 0],
  /** Bytes that the session's reads or writes have moved. */
  position: ['count', 8],
});

/**
 * What is noted while a read or write of the data fd is under way, in memory that counts at once: a successor learns from it
 * what became of a call during which its predecessor was killed.
 */
export const kernel_live = struct('kernel_live', 40, {
  session: ['count', 0],
  /** `Live`. */
  status: ['u32', 8],
  /** Why the last call failed, where status says so. */
  errno: ['u32', 12],
  /** Bytes moved by the calls that are known to have ended. */
  position: ['count', 16],
  /** The driver counts in the file's position, as all of Linux 6.12 do: seen to agree after the first bytes, and not to differ since. */
  tracked: ['u32', 24],
  /** A change of state is under way: its data fd, if there is one, may not be in its place yet. */
  changing: ['u32', 28],
});

export const Live = { IDLE: 0, CALLING: 1, FAILED: 2 } as const;

export const KERNEL_STATE_SIZE: number = kernel_state.size;
export const KERNEL_LIVE_SIZE: number = kernel_live.size;
