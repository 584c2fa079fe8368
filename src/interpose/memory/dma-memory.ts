import { struct } from '../../abi/struct.ts';
import { LOGGED_RANGES_SIZE } from '../../vfio/server/device-log.ts';
import { WINDOW_LOG_SIZE } from '../../vfio/server/window-log.ts';

const dma_state = struct('dma_state', 64, {
  /** Where a device writes, from its first write on until another user opens it. */
  iova: ['count', 0],
  pages: ['u32', 8],
  /** How many pages it has begun to write since then. */
  counter: ['count', 16],
  /** How often in the run it wrote to another device in a state that takes writes, and in one that does not. */
  peer_writes: ['count', 24],
  violations: ['count', 32],
});

const RANGES_AT = dma_state.size;
const DEVICE_LOG_AT = RANGES_AT + LOGGED_RANGES_SIZE;
const CONTAINER_LOG_AT = DEVICE_LOG_AT + WINDOW_LOG_SIZE;

/** Bytes of the shared memory that the DMA of an emulated device takes. */
export const DMA_MEMORY_SIZE = Math.ceil((CONTAINER_LOG_AT + WINDOW_LOG_SIZE) / 4096) * 4096;

/** The parts of that memory. They count at once, without a commit. */
export interface DmaMemory {
  readonly my: ReturnType<typeof dma_state.view>;
  readonly ranges: Uint8Array;
  readonly deviceLog: Uint8Array;
  readonly containerLog: Uint8Array;
}

export function dmaMemory(bytes: Uint8Array): DmaMemory {
  return {
    my: dma_state.view(bytes),
    ranges: bytes.subarray(RANGES_AT, DEVICE_LOG_AT),
    deviceLog: bytes.subarray(DEVICE_LOG_AT, CONTAINER_LOG_AT),
    containerLog: bytes.subarray(CONTAINER_LOG_AT, CONTAINER_LOG_AT + WINDOW_LOG_SIZE),
  };
}
