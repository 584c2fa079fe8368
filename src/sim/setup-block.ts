import { struct } from '../abi/struct.ts';

/** What a device's state begins with: whose it is, and how much memory follows. */
const setup = struct('sim_setup', 32, {
  magic: ['u32', 0],
  version: ['u32', 4],
  compat: ['u32', 8],
  reserved: ['u32', 12],
  size: ['u64', 16],
  reserved_2: ['u64', 24],
});

export const SETUP_SIZE: number = setup.size;

export interface Setup {
  /** Which driver's it is. */
  readonly magic: number;
  readonly version: number;
  readonly compat: number;
  readonly size: number;
}

export function setupBlock({ size, ...rest }: Setup): Uint8Array {
  return setup.encode({ ...rest, size: BigInt(size) });
}

/** True if a state that begins with these bytes is for a device: of the same driver, compatible, as large, and of no newer format. */
export function isFor(mine: Setup, bytes: Uint8Array): boolean {
  const { magic, version, compat, size } = setup.decode(bytes);
  const fits = magic === mine.magic && compat === mine.compat && size === BigInt(mine.size);
  return fits && version <= mine.version;
}
