import { addressOf } from '../../sys/libc.ts';
import type { V1Device } from '../../v1/device.ts';
import type { DraftDevice } from '../../v1/drafts/device.ts';
import type { Call } from '../trap/call.ts';

/** The data section as the target maps it: a file, where the section begins in it, its bytes, and where they are here. */
export interface Section {
  readonly fd: number;
  readonly offset: number;
  readonly size: number;
  readonly address: () => number;
  /** It is the driver's own, which says what pread and pwrite of it do; otherwise it is memory and nothing else. */
  readonly isDrivers: boolean;
}

/** The most that one access to a driver's own data section moves, in bytes. */
const PIECE = 1024 * 1024;
// SAFETY: one thread serves all calls, each to its end; the address stays valid as long as the module.
const piece = new Uint8Array(PIECE);
const pieceAt = addressOf(piece);

/** pread64 of a data section, within it: from `offset` in the region. Returns how much was read. */
export function readSection(call: Call, section: Section, region: V1Device | DraftDevice, offset: number): number {
  const to = call.count(1);
  const count = call.count(2);
  if (!section.isDrivers) {
    call.writeFrom(to, section.address() + offset - region.dataSection.offset, count);
    return count;
  }
  const length = Math.min(count, PIECE);
  call.writeFrom(to, pieceAt, length); // a driver may count what is read: never for a user who does not get it
  region.read(offset, piece.subarray(0, length));
  call.writeFrom(to, pieceAt, length);
  return length;
}

/** pwrite64, as readSection(). */
export function writeSection(call: Call, section: Section, region: V1Device | DraftDevice, offset: number): number {
  const from = call.count(1);
  const count = call.count(2);
  if (!section.isDrivers) {
    call.readTo(from, section.address() + offset - region.dataSection.offset, count);
    return count;
  }
  const length = Math.min(count, PIECE);
  call.readTo(from, pieceAt, length);
  region.write(offset, piece.subarray(0, length));
  return length;
}
