import { struct } from '../abi/struct.ts';
import type { SimMemory } from './memory.ts';

/*
 * The stream of drivers/vfio/pci/mlx5 (Linux 6.12, 7.1): records, each a header and its payload, one behind the other. What is in the
 * firmware's images nobody outside the firmware knows; those here have a layout of their own.
 */

/** The header of a record (drivers/vfio/pci/mlx5/cmd.h: struct mlx5_vf_migration_header). */
export const record_header = struct('mlx5_vf_migration_header', 16, {
  /** Bytes of the payload. */
  record_size: ['u64', 0],
  flags: ['u32', 8],
  tag: ['u32', 12],
});
/** A reader that does not know the tag skips the record (cmd.h: MLX5_MIGF_HEADER_FLAGS_TAG_OPTIONAL). */
export const TAG_OPTIONAL = 1;
/** cmd.h: enum mlx5_vf_migf_header_tag. */
export const Tag = { FW_DATA: 0, STOP_COPY_SIZE: 1 } as const;

/** What begins every stream: a STOP_COPY_SIZE record of 8 bytes (main.c: mlx5vf_add_stop_copy_header). */
export const FIRST_RECORD_SIZE = record_header.size + 8;
/** A size beyond is refused (main.c: mlx5vf_resume_read_header, MAX_LOAD_SIZE). */
export const LARGEST_RECORD = 2 ** 32 - 1;

/** What begins an image here; behind it a table of `extents`, and the memory that each is of. */
export const image_header = struct('sim_mlx5_image', 32, {
  magic: ['u32', 0],
  version: ['u32', 4],
  compat: ['u32', 8],
  extents: ['u32', 12],
  /** Of the device's memory. */
  size: ['u64', 16],
});
export const IMAGE_MAGIC = 0x4d4c5835;
/** An extent of guest memory. */
export const image_extent = struct('sim_mlx5_extent', 16, { offset: ['u64', 0], length: ['u64', 8] });

export const PAGE = 4096;

/** What a session's file is doing (cmd.h: enum mlx5_vf_migf_state); SAVING is none of them yet. */
export const File = { SAVING: 0, ERROR: 1, PRE_COPY_ERROR: 2, PRE_COPY: 3, CHUNKS: 4, COMPLETE: 5 } as const;
/** What the firmware is saving. */
export const Save = { NONE: 0, PRE_COPY: 1, FINAL: 2 } as const;
/** What a record of the list is: the first of a stream, an image of pre-copy, one of stop-and-copy. */
export const Kind = { NONE: 0, FIRST: 1, PRE_COPY: 2, FINAL: 3 } as const;
export const Session = { NONE: 0, SAVING: 1, RESUMING: 2 } as const;

/** The registers of the device, and what its driver knows, in the state memory. */
export const mlx5_state = struct('sim_mlx5_state', 184, {
  /** Plus one, so that fresh memory is told from ERROR. */
  state_plus_one: ['u32', 0],
  session: ['u32', 4],
  session_id: ['count', 8],
  reads: ['u32', 16],
  writes: ['u32', 20],
  blocked: ['u32', 24],
  file: ['u32', 28],
  /** Bytes of the session that were read. */
  position: ['count', 32],
  /** Commands of the firmware so far. */
  saves: ['u32', 40],
  loads: ['u32', 44],
  /** The SAVE that is under way, and when it will have ended, in microseconds of CLOCK_MONOTONIC. */
  saving: ['u32', 48],
  /** Images of pre-copy in this session. */
  pre_copies: ['u32', 52],
  due: ['count', 56],
  /** How far stop-and-copy has come in the memory. */
  cursor: ['count', 64],
  /** Position up to which bytes count as initial ones. */
  initial_end: ['count', 72],
  /** The next image of pre-copy counts as initial too: the firmware has begun anew. */
  reinit: ['u32', 80],
  /** Calls of VFIO_MIG_GET_PRECOPY_INFO in this session. */
  queries: ['u32', 84],
  opted_in: ['u32', 88],
  /** Someone waits for a SAVE, with the driver's lock. */
  waiting: ['u32', 92],
  reset_deferred: ['u32', 96],
  /** Leaving pre-copy has failed, and the file is gone. */
  file_lost: ['u32', 100],
  /** Stop-and-copy leaves out what pre-copy has sent and nobody changed. */
  incremental: ['u32', 104],
  dirtied: ['u32', 108],
  /** Of the record that is being written: bytes of its header that are there, its payload's size, and how much of it. */
  header_taken: ['u32', 112],
  tag: ['u32', 116],
  record_size: ['count', 120],
  taken: ['count', 128],
});
export type Mlx5State = ReturnType<typeof mlx5_state.view>;

/** A record that was not read to its end. */
export const listed_record = struct('sim_mlx5_record', 40, {
  kind: ['u32', 0],
  /** Which pre-copy image it is. */
  image: ['u32', 4],
  /** The part of the memory that an image of stop-and-copy is of. */
  from: ['count', 8],
  to: ['count', 16],
  /** Header included. */
  size: ['count', 24],
  /** How much of it was read. */
  taken: ['count', 32],
});
export type ListedRecord = ReturnType<typeof listed_record.view>;
export const MAX_LISTED = 5;

/** Where these lie in the state memory. */
const LIST_AT = mlx5_state.size;
const HEADER_AT = LIST_AT + MAX_LISTED * listed_record.size;

export function listedRecords({ state }: SimMemory): ListedRecord[] {
  return Array.from({ length: MAX_LISTED }, (_, n) => listed_record.view(state, LIST_AT + n * listed_record.size));
}

/** The header that is being written. */
export function incomingHeader({ state }: SimMemory): Uint8Array {
  return state.subarray(HEADER_AT, HEADER_AT + record_header.size);
}
