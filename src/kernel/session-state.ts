import { struct } from '../abi/struct.ts';

/** What the sessions of a kernel device remember, in memory from which a successor process can go on. */
export const kernel_state = struct('kernel_state', 64, {
  /** Counts sessions. */
  session: ['count', 0],
  /** Bytes that the session's reads or writes have moved. */
  position: ['count', 8],
});

/**
 * What is noted before and after each call on the driver, in memory that counts at once: a successor learns from it what became of
 * a call during which its predecessor was killed.
 */
export const kernel_live = struct('kernel_live', 40, {
  session: ['count', 0],
  /** `Live`. */
  status: ['u32', 8],
  /** Why the last call failed, if `status` is FAILED. */
  errno: ['u32', 12],
  /** Bytes moved by the calls that are known to have ended. */
  position: ['count', 16],
  /**
   * 1 if the driver counts in the file's position, as all drivers of Linux 6.12 do: the position was the number of bytes after the
   * session's first call that moved some, and has not differed since.
   */
  tracked: ['u32', 24],
  /** A change of state is under way: its data fd, if there is one, may not be in the store yet. */
  changing: ['u32', 28],
});

export const Live = { IDLE: 0, CALLING: 1, FAILED: 2 } as const;

export const KERNEL_STATE_SIZE: number = kernel_state.size;
export const KERNEL_LIVE_SIZE: number = kernel_live.size;
