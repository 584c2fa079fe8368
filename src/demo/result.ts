import type { Protocol } from '../device/migratable.ts';
import { ShimError } from '../error.ts';

/** One end of a migration. */
export interface EndResult {
  /** The states that the device's driver was in, in its own protocol. */
  readonly states: readonly string[];
  /** Migration data that left or reached the driver. */
  readonly bytes: number;
  readonly buffers: number;
  /** sha256 of all guest-visible memory of the device, as its driver has it. */
  readonly sha256: string;
}

export interface PartResult {
  readonly vmm: string;
  readonly vmmProtocol: 'v1' | 'v2';
  /** The device as `--device` describes it. */
  readonly device: string;
  readonly deviceProtocol: Protocol;
  readonly guestMemoryBytes: number;
  /** sha256 of what the guest wrote at the source, and of the same place as it was read at the destination. */
  readonly writtenSha256: string;
  readonly readSha256: string;
  /** How long the bytes took, and how long the guest stood still. */
  readonly transferSeconds: number;
  readonly mibPerSecond: number;
  readonly downtimeSeconds: number;
  readonly source: EndResult;
  readonly destination: EndResult;
}

export interface DemoResult {
  readonly ok: true;
  readonly seconds: number;
  readonly parts: readonly PartResult[];
}

/** The result of a migration that arrived intact; throws what is wrong with it otherwise. */
export function verified(part: Omit<PartResult, 'mibPerSecond'>): PartResult {
  const { source, destination } = part;
  expectEqual('guest-visible memory', source.sha256, destination.sha256);
  expectEqual('what the guest wrote', part.writtenSha256, part.readSha256);
  expectStates('source', source.states, ['PRE_COPY', 'STOP_COPY', 'STOP']);
  expectStates('destination', destination.states, ['RESUMING', 'RUNNING']);
  if (destination.bytes !== source.bytes) {
    throw new ShimError('ERR_DEVICE', `${source.bytes} bytes left the source, ${destination.bytes} arrived`);
  }
  return { ...part, mibPerSecond: source.bytes / 2 ** 20 / part.transferSeconds };
}

function expectEqual(what: string, source: string, destination: string): void {
  if (source === destination) return;
  const text = `${what} differs: sha256 ${source} at the source, ${destination} at the destination`;
  throw new ShimError('ERR_DEVICE', text);
}

/** The states must have been entered in this order; others may lie between. */
function expectStates(end: string, states: readonly string[], expected: readonly string[]): void {
  let from = 0;
  for (const state of expected) {
    from = states.indexOf(state, from) + 1;
    if (from === 0) throw new ShimError('ERR_DEVICE', `${end}: the driver went ${states.join(', ')}, without ${state}`);
  }
}
