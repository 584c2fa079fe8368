import type { ErrnoName } from '../abi/errno.ts';

/*
 * A tape: what a recorded driver answered, in an order in which it can be played: sessions of migration data, and errors by their place.
 * It lies in memory that outlives a process, as an index in JSON, and behind it the data.
 */

export interface Tape {
  readonly protocol: 'v1' | 'v2';
  /** Of v2: the flags whose states were seen. */
  readonly migrationFlags: number;
  /** Sessions in which the device was saved, and in which it was loaded, each in order. */
  readonly out: readonly OutSession[];
  readonly in: readonly InSession[];
  /** Changes of state that failed. */
  readonly refusals: readonly Refusal[];
  /** `MIG_DATA_SIZE` by the state in which it was asked for: the last answer. */
  readonly dataSizes: Readonly<Record<string, number>>;
}

interface Session {
  /** Where its data begin on the tape, and how many there are. */
  readonly at: number;
  readonly bytes: number;
  /** Calls that failed, in order. */
  readonly errors: readonly DataError[];
}

export interface OutSession extends Session {
  /** How many of the bytes were there in pre-copy. */
  readonly preCopy: number;
  /** Where each buffer of v1 ends, in bytes. */
  readonly ends: readonly number[];
  /** What was still to come, by how much had gone: of v2 in pre-copy, of v1 by state. */
  readonly infos: readonly Info[];
  /** The recorded user came to the end of the data. */
  readonly isWhole: boolean;
  /** How the driver says that there is nothing now. */
  readonly nothingNow: 'ENOMSG' | null;
}

export type InSession = Session;

export interface Info {
  readonly at: number;
  readonly state: string;
  readonly initialBytes: number;
  readonly dirtyBytes: number;
}

export interface DataError {
  readonly at: number;
  readonly errno: ErrnoName;
}

/** The n-th request for this change, from 1 on, failed. */
export interface Refusal {
  readonly from: string;
  readonly to: string;
  readonly nth: number;
  readonly errno: ErrnoName;
  /** Where that left the device. */
  readonly after: string;
}

const HEADER = 8;

/** Bytes of memory for a tape with so many bytes of data. */
export function tapeSize(tape: Tape, data: number): number {
  return HEADER + Buffer.byteLength(JSON.stringify(tape)) + data;
}

/** Writes the index of a tape, and returns the memory for its data. */
export function writeTape(memory: Uint8Array, tape: Tape): Uint8Array {
  const index = Buffer.from(JSON.stringify(tape));
  new DataView(memory.buffer, memory.byteOffset).setUint32(0, index.length, true);
  memory.set(index, HEADER);
  return memory.subarray(HEADER + index.length);
}

/** The tape that lies there, which this program has written. */
export function readTape(memory: Uint8Array): { readonly tape: Tape; readonly data: Uint8Array } {
  const length = new DataView(memory.buffer, memory.byteOffset).getUint32(0, true);
  const index = Buffer.from(memory.buffer, memory.byteOffset + HEADER, length).toString();
  return { tape: JSON.parse(index) as Tape, data: memory.subarray(HEADER + length) };
}
