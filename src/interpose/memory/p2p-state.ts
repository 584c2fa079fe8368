import { struct } from '../../abi/struct.ts';

/** What is remembered of a v2 driver for the sake of other devices of its VMM (serve/p2p.ts). */
export const p2p_state = struct('p2p_state', 32, {
  /** The thread that was last seen to use the device. */
  tid: ['u32', 0],
  /** It was quieted for another device: 1 more than the number of that one's ledger. */
  quiet: ['u32', 4],
  /** It was asked to run, and waits for others. */
  held: ['u32', 8],
  /** What was done to it for another device has left it in ERROR: its own next request fails with that errno. */
  failed: ['u32', 12],
  /** Since when it is quiet or held, in milliseconds of CLOCK_MONOTONIC. */
  since: ['count', 16],
});
