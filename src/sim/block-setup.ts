import { struct } from '../abi/struct.ts';

/** What the simulated block drivers send first: who they are and how much follows. */
export const blockSetup = struct('sim_setup', 32, {
  magic: ['u32', 0],
  version: ['u32', 4],
  compat: ['u32', 8],
  reserved: ['u32', 12],
  size: ['u64', 16],
  reserved_2: ['u64', 24],
});
