import { seccomp_notif } from '../abi/seccomp.ts';
import { struct } from '../abi/struct.ts';
import { PRESENT_V1_STATE_SIZE } from '../bridge/present-v1-state.ts';
import { PRESENT_V2_STATE_SIZE } from '../bridge/present-v2-state.ts';
import { SIM_STATE_SIZE } from '../sim/memory.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../vfio/server/dma-mappings.ts';

/*
 * What a successor needs to go on where a supervisor was killed, in memory that the keeper holds.
 *
 * A supervisor works on a copy of its state (an arena). When a call has been served, the arena is copied into the one of
 * two slots that does not count, with the call's id and result, and then that slot is made to count, by one store. Only
 * then is the call answered. So a successor finds either the state before a call, and serves it again, or the state after
 * it, and gives the answer that is noted there. The notification itself is received straight into the journal.
 */

const PAGE = 4096;

/** The call that an arena's state is the result of. */
const served_call = struct('served_call', 24, {
  id_low: ['u32', 0],
  id_high: ['u32', 4],
  value: ['count', 8],
  error: ['s32', 16],
  flags: ['u32', 20],
});

const slot_header = struct('slot_header', 8, { generation: ['u32', 0] });
/** Behind it, up to the first slot: what counts at once, without a commit. */
const LIVE_AT = 16;
const SLOTS_AT = 64;

/** Two slots and the number that says which counts: even the first, odd the second; 0 is neither, the beginning. */
export class Ledger {
  /** The working copy. */
  readonly arena: Uint8Array;
  /** Memory that counts at once: what is under way when a supervisor is killed. */
  readonly live: Uint8Array;
  readonly #work: Uint8Array;
  readonly #call: ReturnType<typeof served_call.view>;
  readonly #header: ReturnType<typeof slot_header.view>;
  readonly #slots: readonly [Uint8Array, Uint8Array];

  /** `memory` has `ledgerSize(arenaSize)` bytes. */
  constructor(memory: Uint8Array, arenaSize: number) {
    const slotSize = arenaSize + served_call.size;
    const work = new Uint8Array(slotSize);
    this.#header = slot_header.view(memory);
    this.live = memory.subarray(LIVE_AT, SLOTS_AT);
    const second = SLOTS_AT + slotSize;
    this.#slots = [memory.subarray(SLOTS_AT, second), memory.subarray(second, second + slotSize)];
    this.arena = work.subarray(0, arenaSize);
    this.#call = served_call.view(work, arenaSize);
    this.#work = work;
    this.revert();
  }

  /** Makes the arena what it was at the last commit, which is what a successor would begin with. */
  revert(): void {
    const { generation } = this.#header;
    if (generation > 0) this.#work.set(this.#slots[(generation & 1) as 0 | 1]);
  }

  /** True where the state is the result of the call whose notification begins with these words. */
  isOf(notification: Uint32Array): boolean {
    return this.#call.id_low === notification[0] && this.#call.id_high === notification[1];
  }

  /** The answer to the call that the state is the result of: a value, a negative errno or 0, and the response's flags. */
  get answer(): { value: number; error: number; flags: number } {
    return this.#call;
  }

  /** True before the first commit. */
  get isFresh(): boolean {
    return this.#header.generation === 0;
  }

  /** Makes the arena, as the result of the call whose notification begins with these words, what a successor begins with. */
  commit(notification?: Uint32Array, value = 0, error = 0, flags = 0): void {
    const call = this.#call;
    call.id_low = notification?.[0] ?? 0;
    call.id_high = notification?.[1] ?? 0;
    call.value = Math.max(0, value);
    call.error = error;
    call.flags = flags;
    const next = this.#header.generation + 1;
    this.#slots[(next & 1) as 0 | 1].set(this.#work);
    this.#header.generation = next > 0xffff_fff0 ? 2 - (next & 1) : next;
  }
}

export function ledgerSize(arenaSize: number): number {
  return Math.ceil((SLOTS_AT + 2 * (arenaSize + served_call.size)) / PAGE) * PAGE;
}

/** Lays parts out one behind the other, each at a place that is good for any number. */
function laidOut<const P extends string>(
  parts: readonly (readonly [part: P, size: number])[],
): {
  readonly parts: Readonly<Record<P, { readonly offset: number; readonly size: number }>>;
  readonly size: number;
} {
  let end = 0;
  const places = parts.map(([part, size]) => {
    const offset = end;
    end = Math.ceil((offset + size) / 64) * 64;
    return [part, { offset, size }] as const;
  });
  return { parts: Object.fromEntries(places) as Record<P, { offset: number; size: number }>, size: end };
}

/**
 * A device's arena: the simulated device, or what there is to know of one of the kernel; the bridges (with a round trip, one
 * more around them); what the report says; and its data fd.
 */
export const { parts: deviceArena, size: DEVICE_ARENA_SIZE } = laidOut([
  ['driver', SIM_STATE_SIZE],
  ['presentV1', PRESENT_V1_STATE_SIZE],
  ['presentV2', PRESENT_V2_STATE_SIZE],
  ['outer', Math.max(PRESENT_V1_STATE_SIZE, PRESENT_V2_STATE_SIZE)],
  ['report', 256],
  ['dataFd', 64],
]);

/** Bytes from one notification to the next. */
const NOTIFICATION_STRIDE = 128;
/** Calls that wait for a device: how many at most. More stay in the kernel's queue. */
export const MAX_PARKED = 64;
/** The first pages: the call being received, and the calls that wait. */
const CALLS_SIZE = Math.ceil(((1 + MAX_PARKED) * NOTIFICATION_STRIDE) / PAGE) * PAGE;

/** The fabric's arena: containers, groups and which is whose, as JSON; and the DMA mappings in pages of their own. */
export const FABRIC_ARENA_SIZE = 32 * 1024;
const MAPPINGS_SIZE = Math.ceil((MAX_MAPPINGS * MAPPING_STRIDE) / PAGE) * PAGE;

/** Where everything lies in the journal. */
export class JournalLayout {
  readonly size: number;
  readonly #fabricAt = CALLS_SIZE;
  readonly #mappingsAt = CALLS_SIZE + ledgerSize(FABRIC_ARENA_SIZE);
  readonly #devicesAt = this.#mappingsAt + MAPPINGS_SIZE;

  constructor(devices: number) {
    this.size = this.#devicesAt + devices * ledgerSize(DEVICE_ARENA_SIZE);
  }

  /** Memory for a notification: place 0 is the call being served, the others are calls that wait. */
  notification(journal: Uint8Array, place: number): Uint8Array {
    const at = place * NOTIFICATION_STRIDE;
    return journal.subarray(at, at + seccomp_notif.size);
  }

  /** How often the call in a place has been begun by successors. */
  attempts(journal: Uint8Array, place: number): Uint8Array {
    const at = place * NOTIFICATION_STRIDE + seccomp_notif.size;
    return journal.subarray(at, at + 1);
  }

  /** The byte by which a supervisor says that it has come so far as to serve. */
  begun(journal: Uint8Array): Uint8Array {
    return journal.subarray(NOTIFICATION_STRIDE - 1, NOTIFICATION_STRIDE);
  }

  parts(journal: Uint8Array): { fabric: Uint8Array; mappings: Uint8Array } {
    return {
      fabric: journal.subarray(this.#fabricAt, this.#mappingsAt),
      mappings: journal.subarray(this.#mappingsAt, this.#devicesAt),
    };
  }

  /** What is left of the first pages: what became of devices (findings.ts). */
  findings(journal: Uint8Array): Uint8Array {
    return journal.subarray((1 + MAX_PARKED) * NOTIFICATION_STRIDE, CALLS_SIZE);
  }

  device(journal: Uint8Array, index: number): Uint8Array {
    const size = ledgerSize(DEVICE_ARENA_SIZE);
    const at = this.#devicesAt + index * size;
    return journal.subarray(at, at + size);
  }
}
