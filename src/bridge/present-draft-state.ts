import { struct } from '../abi/struct.ts';
import { liveFields } from './hand-over.ts';

/**
 * All that a presented draft remembers, besides the buffer that is set aside. It lives in memory that the caller may share, so that another
 * process can go on where this one was stopped.
 */
const fields = {
  /** device_state of the v1 device as it was left, plus one: another one means that it has changed behind the user's back. 0 at first. */
  v1_plus_one: ['u8', 0],
  /** device_state as the user sees it, if that is not what the v1 device says (2018). */
  shown: ['u8', 1],
  /** What is known of the next v1 buffer: `Asked`. */
  asked: ['u8', 2],
  /** The buffer that is set aside lies in the data section too. */
  in_section: ['u8', 3],
  /** Which of the two registers of a buffer the user has read (2018), or that data_offset was (2019). */
  offset_read: ['u8', 4],
  size_read: ['u8', 5],
  /** Which of the two was written, for a buffer that goes to the device (2018). */
  offset_written: ['u8', 6],
  size_written: ['u8', 7],
  /** Bytes of the v1 buffer that is set aside and not taken. */
  staged: ['count', 8],
  /** The v1 device's last pending_bytes. */
  pending: ['count', 16],
  /** What the user has been told is pending and takes buffers by (2019). */
  told: ['count', 24],
  /** The buffer that goes to the device, and how much of it the device has taken. */
  write_offset: ['u64', 32],
  write_size: ['u64', 40],
  pushed: ['count', 48],
  /** Why data of this session was refused: the device has not got its state, whatever comes after. */
  refused_errno: ['u32', 56],
  /** A session ended behind the user's back. */
  lost: ['u8', 60],
  /** Something of this session has gone to the user, or come from there. */
  moved: ['u8', 61],
  /** Writes to memory are being logged; or were to be, and the log is not to be trusted. */
  logging: ['u8', 62],
  log_lost: ['u8', 63],
  threshold: ['u64', 64],
  /** The range of memory that is asked about: address or page number as it was written, pages, page size, pages told so far. */
  dirty_start: ['u64', 72],
  dirty_total: ['u64', 80],
  dirty_page: ['u64', 88],
  dirty_cursor: ['u64', 96],
  /** The v1 buffer that is being copied aside, and how much of it is there. */
  buffer_offset: ['count', 104],
  buffer_size: ['count', 112],
  copied: ['count', 120],
  /** It is known which pages of the range are dirty: of any other, all are told. */
  dirty_known: ['u8', 128],
  /** v1 buffers that have been set aside, and transactions that the device has taken. */
  buffers: ['count', 136],
  transactions: ['count', 144],
} as const;

/** Memory that counts at once. What is kept is a whole buffer, set aside. */
export const present_draft_live = struct('present_draft_live', 48, {
  ...liveFields,
  /** Bytes of the buffer that is kept. */
  kept_size: ['count', 32],
  /** The device_state that was written last, plus one. */
  wrote: ['u8', 40],
});
export type PresentDraftLive = ReturnType<typeof present_draft_live.view>;
/** Bytes of PresentDraftOptions.live. */
export const PRESENT_DRAFT_LIVE_SIZE: number = present_draft_live.size;

const LIVE_OFFSET = 152;
export const present_draft_state = struct('present_draft_state', LIVE_OFFSET + PRESENT_DRAFT_LIVE_SIZE, fields);
export type PresentDraftState = ReturnType<typeof present_draft_state.view>;
/** Bytes of PresentDraftOptions.state. */
export const PRESENT_DRAFT_STATE_SIZE: number = present_draft_state.size;

/** Where `present_draft_live` is if the v1 device forgets with the rest, as a simulated one does. */
export function draftLiveMemory(state: Uint8Array): Uint8Array {
  return state.subarray(LIVE_OFFSET, LIVE_OFFSET + PRESENT_DRAFT_LIVE_SIZE);
}

/** How far a v1 buffer has been asked for. */
export const Asked = {
  NO: 0,
  /** pending_bytes is known, and not 0. */
  PENDING: 1,
  /** The buffer is known, and is being read: what was read is not read again, as there are drivers that count it (HiSilicon's). */
  COPYING: 2,
} as const;
