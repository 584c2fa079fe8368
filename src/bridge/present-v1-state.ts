import { struct } from '../abi/struct.ts';

/**
 * All that the bridge remembers. It lives in memory that the caller may share, so that another process can go on where
 * this one was stopped.
 */
export const present_v1_state = struct('present_v1_state', 72, {
  /** Bytes in the data section that came from the data fd and that the user has not acknowledged. */
  staged: ['count', 0],
  /** Bytes read from the data fd in this session. */
  read_total: ['count', 8],
  /** MIG_DATA_SIZE when stop-and-copy began: of most drivers a constant, what pre-copy has sent included. */
  promised: ['count', 16],
  /** Bytes of the current data_size write that the data fd has taken. */
  pushed: ['count', 24],
  /** An error of the data fd behind the staged bytes, kept for the access that needs what comes after them. */
  deferred_errno: ['u32', 32],
  /** The staged bytes were shown: the next read of pending_bytes acknowledges them. */
  shown: ['u8', 36],
  /** The data fd has given its last byte. */
  ended: ['u8', 37],
  /** Pre-copy is shown though the driver has none and simply runs. */
  virtual_pre_copy: ['u8', 38],
  /** The session that the user knows of (`Session`). */
  session: ['u8', 39],
  /** A session that ended behind the user's back and of which the user has not been told (`Session`). */
  lost: ['u8', 40],
  /** The operator knows that the device is in ERROR, which stays so (onError `report`). */
  error_told: ['u8', 41],
  /** An access of the user's has failed with the loss. */
  told: ['u8', 42],
  /** Bytes of this session have gone to the user, or come from there. */
  moved: ['u8', 43],
  /** Why it was lost, if the data fd had said so. */
  lost_errno: ['u32', 44],
  /** Why data of this session was refused: the device has not got its state, whatever comes after. */
  refused_errno: ['u32', 48],
  /** In which half of the data section the staged bytes are, or the next ones will be. */
  place: ['u8', 52],
  /** Bytes that have been read ahead into the other half. The staged ones were shown by then. */
  ahead: ['count', 56],
  /** How much the next buffer of stop-and-copy shows at most; 0 of the first one. */
  length: ['count', 64],
});

export type PresentV1State = ReturnType<typeof present_v1_state.view>;
/** Bytes of PresentV1Options.state. */
export const PRESENT_V1_STATE_SIZE: number = present_v1_state.size;
