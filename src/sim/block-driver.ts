import {
  commonOptions,
  compatibilityOptions,
  realOption,
  streamOptions,
  type CompatibleValues,
} from './common-options.ts';
import type { PciIdentity, V2Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import type { Options, ValuesOf } from './option.ts';
import { isFor, setupBlock } from './setup-block.ts';
import { formatSize } from './size.ts';
import { SimV2Device, type V2Driver } from './v2-device.ts';
import type { SimV2 } from './v2-sim.ts';

const options = { ...commonOptions(64 * 1024), ...streamOptions, ...compatibilityOptions, ...realOption };

/** What tells one of these drivers from another. */
interface Habits<O extends Options> {
  readonly summary: string;
  readonly pci: PciIdentity;
  readonly migrationFlags: number;
  /** Begins its setup block. */
  readonly magic: number;
  /** With `real=1`: the size of its one buffer, and how much of it the memory can be. */
  readonly realSize: number;
  readonly largestMemory: number;
  /** Options that it has with `real=1` only. */
  readonly realOptions: O;
  /** The device with `real=1`. */
  createReal(values: ValuesOf<typeof options & O>, memory: SimMemory): SimV2;
}

/**
 * A driver that sends a setup block and then the device's memory. A destination checks version, compatibility and size as
 * soon as the setup block is complete, within the write. With `real=1` it has the stream and the habits of the driver that it stands for.
 */
export function blockKind<const O extends Options>(habits: Habits<O>): V2Kind<typeof options & O> {
  type Values = ValuesOf<typeof options & O>;
  const { summary, pci, migrationFlags, magic, realSize, largestMemory, realOptions } = habits;
  const small = { size: 16 * 1024 } as Partial<Values>;
  return {
    protocol: 'v2',
    summary,
    options: { ...options, ...realOptions },
    pci,
    small,
    identity: ({ compat, real }) => ({ compat: String(compat), ...(real && { real: '1' }) }),
    keptSize: ({ real }) => (real ? realSize : 0),
    defaults: ({ real }) => (real ? ({ size: largestMemory } as Partial<Values>) : {}),
    check: (values) => {
      const { real, size } = values as ValuesOf<typeof options>;
      if (real && size > largestMemory)
        return `size=${formatSize(size)} is more than real=1 has room for, ${largestMemory}`;
      const only = Object.entries(realOptions).find(([name, { initial }]) => values[name as keyof Values] !== initial);
      return only && !real ? `${only[0]} is for real=1` : undefined;
    },
    create: (values, memory) =>
      values.real
        ? habits.createReal(values, memory)
        : new SimV2Device(values, blockDriver(migrationFlags, magic, values, memory), memory),
  };
}

function blockDriver(
  migrationFlags: number,
  magic: number,
  { version, compat, size }: CompatibleValues,
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
