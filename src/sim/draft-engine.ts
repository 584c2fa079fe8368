import { struct } from '../abi/struct.ts';
import type { SimMemory } from './memory.ts';
import { VendorV1 } from './vendor-v1-device.ts';
import type { IterativeValues } from './vendor-v1-options.ts';

/** What a draft's driver keeps: memory as it was last sent, and the buffer that is on its way. */
export function draftKeptSize({ size, section }: IterativeValues): number {
  return size + section;
}

/** Behind what `vendor-v1` keeps in the state memory. */
const STATE_OFFSET = 192;

const sim_draft_state = struct('sim_draft_state', 64, {
  state_plus_one: ['u32', 0],
  offset_read: ['u8', 4],
  size_read: ['u8', 5],
  offset_written: ['u8', 6],
  size_written: ['u8', 7],
  /** The buffer that was fetched. */
  size: ['count', 8],
  pending: ['count', 16],
  write_offset: ['count', 24],
  write_size: ['count', 32],
  threshold: ['u64', 40],
});

/**
 * The device behind a draft's registers, which is that of `vendor-v1`: what it sends and takes, and when. Its buffers lie in memory of the
 * driver's own, as the data section may get a bitmap.
 */
export class DraftEngine {
  readonly device: VendorV1;
  readonly section: Uint8Array;
  readonly staging: Uint8Array;
  readonly my: ReturnType<typeof sim_draft_state.view>;

  constructor(values: IterativeValues, memory: SimMemory) {
    this.section = memory.section;
    const kept = memory.kept.subarray(0, values.size);
    this.staging = memory.kept.subarray(values.size, values.size + values.section);
    this.my = sim_draft_state.view(memory.state, STATE_OFFSET);
    this.device = new VendorV1(
      { ...values, strict: false, libvfio: false },
      { ...memory, kept, section: this.staging },
    );
  }

  /** Has the device prepare its next buffer; 0 bytes if it has none now. What was read before counts as sent. */
  fetch(): number {
    this.device.readPendingBytes();
    this.device.readDataOffset();
    return this.device.readDataSize();
  }

  /** Puts the buffer into the data section. */
  show(): void {
    this.section.set(this.staging.subarray(0, this.my.size));
  }

  /** Has the device take bytes of the data section. */
  load(at: number, size: number): void {
    this.staging.set(this.section.subarray(at, at + size));
    this.device.writeDataSize(size);
  }

  /** No buffer is on its way. */
  forget(): void {
    const { my } = this;
    my.offset_read = 0;
    my.size_read = 0;
    my.offset_written = 0;
    my.size_written = 0;
    my.size = 0;
    my.pending = 0;
  }
}
