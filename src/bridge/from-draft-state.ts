import { struct } from '../abi/struct.ts';

/** All that a draft's device, shown as a v1 device, remembers; memory that the caller may share. */
export const from_draft_state = struct('from_draft_state', 64, {
  /** device_state as it was brought about, plus one: a draft does not say all that v1 does. 0 at first. */
  v1_plus_one: ['u8', 0],
  /** A stop is shown over MIGRATION_STOPNCOPY, of which nothing was read (2018). */
  unread: ['u8', 1],
  /** The buffer that the user is shown. */
  shown: ['u8', 2],
  /** data_offset of the buffer that goes to the driver was written: a call that is repeated writes it once (2018). */
  offset_written: ['u8', 3],
  offset: ['count', 8],
  size: ['count', 16],
  /** What the driver's last answer left to take buffers by (2019). */
  pending: ['count', 24],
});

export type FromDraftState = ReturnType<typeof from_draft_state.view>;
/** Bytes of FromDraftOptions.state. */
export const FROM_DRAFT_STATE_SIZE: number = from_draft_state.size;
