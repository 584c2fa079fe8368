import { struct } from '../../abi/struct.ts';

/** What is remembered of a device for the sake of others of its VMM (serve/peers.ts). */
export const p2p_state = struct('p2p_state', 32, {
  /** The thread that was last seen to use the device. */
  tid: ['u32', 0],
  /** Not 0: it waits for others that are to stop with it; serve/p2p.ts and serve/offered-p2p.ts say what the number is. */
  quiet: ['u32', 4],
  /** 1: it was asked to run, and waits for others. */
  held: ['u32', 8],
  /** What was done to it for another device has failed, and its own next request fails for that: an errno. */
  failed: ['u32', 12],
  /** Since when it waits, in milliseconds of CLOCK_MONOTONIC. */
  since: ['count', 16],
});
