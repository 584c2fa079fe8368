import { struct, type Values } from '../abi/struct.ts';

export const PAGE = 4096;
export const MAGIC = 0x31564456; // "VDV1"
export const Kind = { HEADER: 1, PAGES: 2, END: 3 } as const;

/** What each v1 buffer begins with. HEADER: `offset` is the device's size. PAGES: `length` bytes for `offset` follow. */
export const record = struct('vendor_v1_record', 32, {
  magic: ['u32', 0],
  kind: ['u32', 4],
  version: ['u32', 8],
  compat: ['u32', 12],
  offset: ['u64', 16],
  length: ['u64', 24],
});

/** The registers of the simulated v1 device and of its driver. */
export const vendorFields = {
  initialized: ['u32', 0],
  device_state: ['u32', 4],
  reads: ['u32', 8],
  writes: ['u32', 12],
  blocked: ['u32', 20],
  /** Saving: how far the first pass has come, where the search for changed pages goes on. */
  cursor: ['count', 24],
  scan: ['count', 32],
  /** The buffer in the data section. */
  buffer_offset: ['count', 40],
  buffer_size: ['count', 48],
  buffer_kind: ['u32', 56],
  shown: ['u32', 60],
  header_sent: ['u32', 64],
  end_sent: ['u32', 68],
  dirtied: ['u32', 72],
  /** Resuming: which records came, bytes of the record being collected, bytes of its data still to come and where to. */
  header_loaded: ['u32', 76],
  end_loaded: ['u32', 80],
  collected: ['u32', 84],
  data_left: ['count', 88],
  data_at: ['count', 96],
} as const;

/** Where a record that arrives in pieces is collected, in the state memory. */
export const COLLECT_OFFSET = 128;

export const vendor_v1_state = struct('vendor_v1_state', 104, vendorFields);
export type VendorState = Values<typeof vendorFields>;
