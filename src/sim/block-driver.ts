import { commonOptions, compatibilityOptions, streamOptions } from './common-options.ts';
import type { PciIdentity, V2Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import type { ValuesOf } from './option.ts';
import { isFor, setupBlock } from './setup-block.ts';
import { SimV2Device, type V2Driver } from './v2-device.ts';

const options = { ...commonOptions(64 * 1024), ...streamOptions, ...compatibilityOptions };

/** What tells one of these drivers from another. */
interface Habits {
  readonly summary: string;
  readonly pci: PciIdentity;
  readonly migrationFlags: number;
  /** Begins its setup block. */
  readonly magic: number;
}

/**
 * A driver that sends a setup block and then the device's memory. A destination checks version, compatibility and size as
 * soon as the setup block is complete, within the write.
 */
export function blockKind({ summary, pci, migrationFlags, magic }: Habits): V2Kind<typeof options> {
  return {
    protocol: 'v2',
    summary,
    options,
    pci,
    small: { size: 16 * 1024 },
    identity: ({ compat }) => ({ compat: String(compat) }),
    create: (values, memory) => new SimV2Device(values, blockDriver(migrationFlags, magic, values, memory), memory),
  };
}

function blockDriver(
  migrationFlags: number,
  magic: number,
  { version, compat, size }: ValuesOf<typeof options>,
  memory: SimMemory,
): V2Driver {
  const mine = { magic, version, compat, size };
  return {
    migrationFlags,
    setup: setupBlock(mine),
    payloadSize: size,
    forgetsRefusal: false,
    readPayload: (position, into) => into.set(memory.bar.subarray(position, position + into.length)),
    writePayload: (position, from) => memory.bar.set(from, position),
    checkSetup(bytes) {
      return isFor(mine, bytes) ? undefined : 'EINVAL';
    },
  };
}
