import { seccomp_notif } from '../../abi/seccomp.ts';
import { FROM_DRAFT_STATE_SIZE } from '../../bridge/from-draft-state.ts';
import { PRESENT_DRAFT_STATE_SIZE } from '../../bridge/present-draft-state.ts';
import { PRESENT_V1_STATE_SIZE } from '../../bridge/present-v1-state.ts';
import { PRESENT_V2_STATE_SIZE } from '../../bridge/present-v2-state.ts';
import { SIM_STATE_SIZE } from '../../sim/memory.ts';
import { device_log } from '../../vfio/server/device-log.ts';
import { LOGGED_PAGES_STATE_SIZE } from '../../vfio/client/logged-pages.ts';
import { irq_setup } from '../../vfio/server/interrupts.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS } from '../../vfio/server/mapping.ts';
import { CONTAINERS, MAX_EMULATED } from '../run/plan.ts';
import { DIRTY_STATE_SIZE } from './dirty-state.ts';
import { p2p_state } from './p2p-state.ts';
import { Ledger, ledgerSize, LEDGERS_SIZE, type Ledgers } from './ledger.ts';
import { RECORDING_RING_SIZE } from './recording-ring.ts';

/** By which parts of the journal are laid out, which is mapped as a whole: nothing of it depends on the host's pages. */
const PAGE = 4096;

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
 * more around them), those from and to a draft, and to and from its twin in a round trip; which memory a driver of the kernel logs
 * for a draft; what the report says; its data fd; what other devices have to do with it; its log of DMA; how far its migration is; and which interrupts are set up.
 */
export const { parts: deviceArena, size: DEVICE_ARENA_SIZE } = laidOut([
  ['driver', SIM_STATE_SIZE],
  ['presentV1', PRESENT_V1_STATE_SIZE],
  ['presentV2', PRESENT_V2_STATE_SIZE],
  ['outer', Math.max(PRESENT_V1_STATE_SIZE, PRESENT_V2_STATE_SIZE)],
  ['fromDraft', FROM_DRAFT_STATE_SIZE],
  ['presentDraft', PRESENT_DRAFT_STATE_SIZE],
  ['fromTwin', FROM_DRAFT_STATE_SIZE],
  ['presentTwin', PRESENT_DRAFT_STATE_SIZE],
  ['loggedPages', LOGGED_PAGES_STATE_SIZE],
  ['report', 256],
  ['dataFd', 64],
  ['p2p', p2p_state.size],
  ['dmaLog', device_log.size],
  ['offeredP2P', p2p_state.size],
  ['progress', 144],
  ['interrupts', irq_setup.size],
]);

/** Bytes from one notification to the next. */
const NOTIFICATION_STRIDE = 128;
/** Calls that wait for a device: how many at most. More stay in the kernel's queue. */
export const MAX_PARKED = 64;
/** The first pages: the call being received, to which the kernel writes straight, and the calls that wait. */
const CALLS_SIZE = Math.ceil(((1 + MAX_PARKED) * NOTIFICATION_STRIDE) / PAGE) * PAGE;

/** The arena of the nodes in /dev/vfio: containers, groups and which is whose, as JSON; and the DMA mappings in pages of their own. */
export const NODES_ARENA_SIZE = 32 * 1024;
const MAPPINGS_SIZE = Math.ceil((MAX_MAPPINGS * MAPPING_STRIDE) / PAGE) * PAGE;

/** Where everything lies in the journal: the memory that the keeper holds for its supervisors (ledger.ts). */
export class JournalLayout {
  readonly size: number;
  readonly #ledgersAt = CALLS_SIZE;
  readonly #nodesAt = this.#ledgersAt + Math.ceil(LEDGERS_SIZE / PAGE) * PAGE;
  readonly #mappingsAt = this.#nodesAt + ledgerSize(NODES_ARENA_SIZE);
  readonly #containersAt = this.#mappingsAt + MAPPINGS_SIZE;
  readonly #devicesAt = this.#containersAt + CONTAINERS * ledgerSize(DIRTY_STATE_SIZE);
  readonly #recordingAt: number;

  constructor(devices: number) {
    const end = this.#devicesAt + devices * ledgerSize(DEVICE_ARENA_SIZE);
    this.#recordingAt = Math.ceil(end / PAGE) * PAGE;
    this.size = this.#recordingAt + RECORDING_RING_SIZE;
  }

  /** Memory for a notification: place 0 is the call being served, the others are calls that wait. */
  notification(journal: Uint8Array, place: number): Uint8Array {
    const at = place * NOTIFICATION_STRIDE;
    return journal.subarray(at, at + seccomp_notif.size);
  }

  /** How often successors have begun to serve the call in a place. */
  attempts(journal: Uint8Array, place: number): Uint8Array {
    const at = place * NOTIFICATION_STRIDE + seccomp_notif.size;
    return journal.subarray(at, at + 1);
  }

  /** The byte by which a supervisor says that it has come so far as to serve. */
  begun(journal: Uint8Array): Uint8Array {
    return journal.subarray(NOTIFICATION_STRIDE - 1, NOTIFICATION_STRIDE);
  }

  /** Which slots of the ledgers count, and what was answered last. */
  ledgers(journal: Uint8Array): Uint8Array {
    return journal.subarray(this.#ledgersAt, this.#ledgersAt + LEDGERS_SIZE);
  }

  parts(journal: Uint8Array): { nodes: Uint8Array; mappings: Uint8Array } {
    return {
      nodes: journal.subarray(this.#nodesAt, this.#mappingsAt),
      mappings: journal.subarray(this.#mappingsAt, this.#containersAt),
    };
  }

  /** What is left of the first pages: what became of devices (findings.ts). */
  findings(journal: Uint8Array): Uint8Array {
    return journal.subarray((1 + MAX_PARKED) * NOTIFICATION_STRIDE, CALLS_SIZE);
  }

  /** The lines of a recording that are not written down yet. */
  recording(journal: Uint8Array): Uint8Array {
    return journal.subarray(this.#recordingAt, this.#recordingAt + RECORDING_RING_SIZE);
  }

  device(journal: Uint8Array, index: number): Uint8Array {
    const size = ledgerSize(DEVICE_ARENA_SIZE);
    const at = this.#devicesAt + index * size;
    return journal.subarray(at, at + size);
  }

  nodesLedger(journal: Uint8Array, ledgers: Ledgers): Ledger {
    return new Ledger(ledgers, 0, this.parts(journal).nodes, NODES_ARENA_SIZE);
  }

  deviceLedger(journal: Uint8Array, ledgers: Ledgers, index: number): Ledger {
    return new Ledger(ledgers, 1 + index, this.device(journal, index), DEVICE_ARENA_SIZE);
  }

  /** What is known of containers of the kernel. */
  containerLedgers(journal: Uint8Array, ledgers: Ledgers): Ledger[] {
    const size = ledgerSize(DIRTY_STATE_SIZE);
    return Array.from({ length: CONTAINERS }, (_, n) => {
      const at = this.#containersAt + n * size;
      const index = 1 + MAX_EMULATED + n;
      return new Ledger(ledgers, index, journal.subarray(at, at + size), DIRTY_STATE_SIZE);
    });
  }
}
