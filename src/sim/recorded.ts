import { V1Region } from '../v1/region.ts';
import { commonOptions, type CommonOptions } from './common-options.ts';
import type { DriverKind, PciIdentity } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import type { ValuesOf } from './option.ts';
import { RecordedV1 } from './recorded-v1.ts';
import { RecordedV2 } from './recorded-v2.ts';
import { readTape, type Tape } from './tape.ts';
import { TapePlayer } from './tape-player.ts';

/**
 * A recorded driver that is played, as `recording:FILE` names it: what whoever has read the file says of it. Its tape is to be in the
 * memory that it keeps (`SimMemory.kept`) before it is made.
 */
export interface RecordedSpec extends ValuesOf<CommonOptions> {
  readonly driver: 'recording';
  readonly file: string;
  /** The device's name in the recording. */
  readonly name: string;
  readonly protocol: Tape['protocol'];
  /** Bytes of the tape, and of the largest buffer of v1. */
  readonly tape: number;
  readonly section: number;
  /** What is known of the device that was recorded. */
  readonly of: string;
  readonly pci: PciIdentity;
  readonly identity: Readonly<Record<string, string>>;
}

const options = commonOptions(4096);

/** Who nothing is known of: a device of the kernel, whose PCI ids no recording tells. */
export const UNKNOWN_PCI: PciIdentity = { vendor: 0x1af4, device: 0x10f3, class: 0xff0000 };

export function recordedKind({ protocol, tape, section, of, pci, identity }: RecordedSpec): DriverKind {
  const common = {
    summary: `a recording of ${of}`,
    options,
    pci,
    small: {},
    keptSize: () => tape,
    identity: () => identity,
  };
  if (protocol === 'v2') {
    return { ...common, protocol, create: (_, memory, warn) => new RecordedV2(playerOf(memory, warn)) };
  }
  return {
    ...common,
    protocol,
    sectionSize: () => section,
    create: (_, memory, warn) => new V1Region(new RecordedV1(playerOf(memory, warn), memory.section), memory.section),
  };
}

function playerOf({ kept, state }: SimMemory, warn: (message: string) => void = () => {}): TapePlayer {
  const { tape, data } = readTape(kept);
  return new TapePlayer(tape, data, state, warn);
}
