import { presentV1 } from '../../bridge/present-v1.ts';
import { presentV2 } from '../../bridge/present-v2.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { observe, untimed, type DeviceSink } from '../../device/observe.ts';
import type { V1Device } from '../../v1/device.ts';
import type { V2Device } from '../../v2/device.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Plan } from '../run/plan.ts';

/** Memory that outlives this process, for the bridges of one device. Mapped when it is asked for. */
export interface PresentationMemory {
  /** The data section that the VMM maps, if the v1 region is ours. */
  readonly section: () => Uint8Array;
  /** The data section inside a round trip. */
  readonly inner: () => Uint8Array;
  readonly carry: () => Uint8Array;
  readonly carryOuter: () => Uint8Array;
  readonly arena: Uint8Array;
  /** Memory that counts at once, for a v1 driver of the kernel: it does not forget, with the arena, what it was asked. */
  readonly live: Uint8Array | undefined;
}

export interface PresentationOptions {
  readonly roundTrip: boolean;
  readonly segmentation: Plan['segmentation'];
  readonly offerP2P: boolean;
  readonly countStopCopy: boolean;
  readonly holdPrecopy: number;
  readonly onError: Plan['onError'];
  /** What is known of v1 drivers. */
  readonly v1: Plan['v1'];
  readonly warn: (message: string) => void;
  /** Is told of each call on what the VMM sees, without the time. */
  readonly sink: DeviceSink;
}

/** A device in both protocols, around whatever it speaks itself, and the outermost of the objects, which resets them all. */
export interface Presentations {
  readonly v1: V1Device;
  readonly v2: V2Device;
  readonly outermost: V1Device | V2Device;
}

export function makePresentations(
  backend: MigratableDevice,
  memory: PresentationMemory,
  options: PresentationOptions,
): Presentations {
  const { roundTrip, segmentation, offerP2P, countStopCopy, holdPrecopy, onError, v1: habits, warn } = options;
  const part = (name: 'presentV1' | 'presentV2' | 'outer'): Uint8Array => {
    const { offset, size } = deviceArena[name];
    return memory.arena.subarray(offset, offset + size);
  };
  const shown = (device: V2Device, state: Uint8Array): V1Device =>
    presentV1(device, {
      dataSection: memory.section(),
      state,
      onError,
      pendingIncludesStopCopy: countStopCopy,
      holdPrecopy,
      warn,
    });
  const toV2 = (device: V1Device, carry: Uint8Array, state: Uint8Array): V2Device => {
    const isDriver = device === backend.device;
    const live = isDriver ? memory.live : undefined;
    // presentV1, inside a round trip, loads on 4 to 0 too
    const known = isDriver ? habits : { stopBySaving: false, stopAfterLoad: true };
    return presentV2(device, {
      carry,
      state,
      segmentation,
      offerP2P,
      ...known,
      warn,
      ...(live && { live }),
    });
  };
  const asSeen = (v1: V1Device, v2: V2Device): { v1: V1Device; v2: V2Device } => ({
    v1: observe({ protocol: 'v1', device: v1 }, options.sink, untimed).device,
    v2: observe({ protocol: 'v2', device: v2 }, options.sink, untimed).device,
  });

  if (backend.protocol === 'v2') {
    const inside = (): V1Device =>
      presentV1(backend.device, { dataSection: memory.inner(), state: part('presentV1'), onError, warn });
    const v2 = roundTrip ? toV2(inside(), memory.carry(), part('presentV2')) : backend.device;
    const seen = asSeen(shown(v2, part('outer')), v2);
    return { ...seen, outermost: seen.v1 };
  }
  const v1 = roundTrip
    ? shown(toV2(backend.device, memory.carry(), part('presentV2')), part('presentV1'))
    : backend.device;
  const v2 = roundTrip ? toV2(v1, memory.carryOuter(), part('outer')) : toV2(v1, memory.carry(), part('presentV2'));
  const seen = asSeen(v1, v2);
  return { ...seen, outermost: seen.v2 };
}
