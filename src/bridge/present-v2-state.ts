import { struct, type Values } from '../abi/struct.ts';
import { FRAME_HEADER_SIZE } from './frame.ts';
import { liveFields } from './hand-over.ts';

/**
 * All that presentV2 remembers, besides the carried rest of a buffer. It lives in memory that the caller may share, so
 * that another process can go on where this one was stopped. What `OF_THE_DEVICE` names outlasts a session.
 */
const fields = {
  /** Counts sessions: a handle of an earlier one is refused. */
  session_id: ['count', 0],
  /** Bytes of the last session: read, and left where it was given up; or written. */
  last_total: ['count', 8],
  /** STOP, or RUNNING_P2P, is shown while device_state is 2 and nothing was read, or 4 and all data was handed over. */
  stopped: ['u8', 16],
  /** A P2P state is shown while the driver is fully stopped. */
  p2p: ['u8', 17],
  session: ['u8', 18],
  /** The current buffer is in the carry memory, not in the region. */
  carried: ['u8', 19],
  /** Frame header bytes still to be read (saving) or already collected (resuming). */
  header_left: ['u8', 20],
  header_filled: ['u8', 21],
  /** pending_bytes was read in this session. */
  pending_known: ['u8', 22],
  /** The driver has refused 0 to 2: STOP is written as 3 and 2. */
  stop_by_saving: ['u8', 23],
  /** The current buffer: where, how many bytes, how many of them the user has. */
  buffer_offset: ['count', 24],
  buffer_size: ['count', 32],
  buffer_pos: ['count', 40],
  /** The session's first and latest pending_bytes, the bytes handed out or taken in all and when the latest was read. */
  first_pending: ['count', 48],
  last_pending: ['count', 56],
  session_read: ['count', 64],
  pending_read: ['count', 72],
  /** The transaction being filled while resuming: where, its size, how much of it there is. */
  space_offset: ['count', 80],
  space_size: ['count', 88],
  filled: ['count', 96],
  /** Bytes of the current frame that have not come yet. */
  frame_left: ['count', 104],
  /** Buffers that the driver has shown, and transactions that it has taken. */
  buffers: ['count', 112],
  transactions: ['count', 120],
  /** Why a transaction of this session was refused: the device has not got its state, whatever comes after. */
  refused_errno: ['u32', 128],
  /** pending_bytes of this driver is a mere yes or no. */
  pending_is_yes: ['u8', 132],
  /** The session is in PRE_COPY, as its user was shown last. If device_state is 2, a predecessor was killed on the way from there. */
  pre_copy: ['u8', 133],
} as const;

/** What does not end with a session. */
export const OF_THE_DEVICE = [
  'session_id',
  'last_total',
  'stopped',
  'p2p',
  'stop_by_saving',
  'pending_is_yes',
] as const satisfies readonly (keyof typeof fields)[];

/** Memory that counts at once. */
export const present_v2_live = struct('present_v2_live', 32, liveFields);
export type PresentV2Live = ReturnType<typeof present_v2_live.view>;
/** Bytes of PresentV2Options.live. */
export const PRESENT_V2_LIVE_SIZE: number = present_v2_live.size;

const HEADER_OFFSET = 136;
const LIVE_OFFSET = HEADER_OFFSET + FRAME_HEADER_SIZE;
export const present_v2_state = struct('present_v2_state', LIVE_OFFSET + PRESENT_V2_LIVE_SIZE, fields);
export type PresentV2State = Values<typeof fields>;
/** Bytes of PresentV2Options.state. */
export const PRESENT_V2_STATE_SIZE: number = present_v2_state.size;

/** Where `present_v2_live` is when the driver forgets with the rest: a simulated one. */
export function liveMemory(state: Uint8Array): Uint8Array {
  return state.subarray(LIVE_OFFSET, LIVE_OFFSET + PRESENT_V2_LIVE_SIZE);
}

/** Where the bytes of a frame header that came in pieces are collected. */
export function headerMemory(state: Uint8Array): Uint8Array {
  return state.subarray(HEADER_OFFSET, HEADER_OFFSET + FRAME_HEADER_SIZE);
}
