import { presentV1 } from '../../bridge/present-v1.ts';
import { presentV2 } from '../../bridge/present-v2.ts';
import type { DirtyPages } from '../../bridge/draft-dirty.ts';
import { fromDraft } from '../../bridge/from-draft.ts';
import { presentDraft2018 } from '../../bridge/present-draft-2018.ts';
import { presentDraft2019 } from '../../bridge/present-draft-2019.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { observe, untimed, type DeviceSink } from '../../device/observe.ts';
import { ObservedDraft } from '../../device/observed-region.ts';
import type { V1Device } from '../../v1/device.ts';
import { isDraft, type Draft, type DraftDevice } from '../../v1/drafts/device.ts';
import type { V2Device } from '../../v2/device.ts';
import { deviceArena } from '../memory/journal.ts';
import type { Plan } from '../run/plan.ts';

/** Memory that outlives this process, for the bridges of one device. Mapped when it is asked for. */
export interface PresentationMemory {
  /** The data section that the VMM maps, if the migration region is ours. */
  readonly section: () => Uint8Array;
  /** The data section inside a round trip, or of v1 inside a draft. */
  readonly inner: () => Uint8Array;
  readonly carry: () => Uint8Array;
  readonly carryOuter: () => Uint8Array;
  /** The data section of a draft inside a round trip. */
  readonly twin: () => Uint8Array;
  readonly arena: Uint8Array;
  /** Memory that counts at once, for a v1 driver of the kernel: it does not forget, with the arena, what it was asked. */
  readonly live: Uint8Array | undefined;
}

export interface PresentationOptions {
  readonly present: Plan['present'];
  readonly roundTrip: boolean;
  readonly segmentation: Plan['segmentation'];
  readonly offerP2P: boolean;
  readonly countStopCopy: boolean;
  readonly holdPrecopy: number;
  /** The most bytes that one buffer of v1 shows; without it, they grow as presentV1 has it. */
  readonly bufferSize?: number | undefined;
  readonly onError: Plan['onError'];
  /** What is known of v1 drivers. */
  readonly v1: Plan['v1'];
  /** Who knows which memory the device has written to, for drafts; without it all of the memory counts as dirty. */
  readonly dirty: DirtyPages | undefined;
  /** The v2 driver as a v1 user drives it, which knows nothing of P2P states. */
  readonly together: (device: V2Device) => V2Device;
  /** The device that a v2 user drives, if its P2P states are what presentV2 offers. */
  readonly offered: (device: V2Device) => V2Device;
  readonly warn: (message: string) => void;
  /** What is told of each call on what the VMM sees, without the time: in v1, or below a draft, with the device that is in v1. */
  readonly watched: (v1: V1Device | undefined) => DeviceSink;
  /** Is told of each call on a draft's region, which is counted in v1. */
  readonly seen?: DeviceSink;
}

/**
 * A device around whatever it speaks itself: with a migration region, which is v1's or that of a draft, and in v2 unless a draft is
 * presented; and the outermost of the objects, which resets them all.
 */
export interface Presentations {
  readonly region: V1Device | DraftDevice;
  readonly v2: V2Device | undefined;
  readonly outermost: V1Device | V2Device | DraftDevice;
}

/** The bridges' memory in an arena. */
type Part = Exclude<keyof typeof deviceArena, 'driver' | 'loggedPages' | 'report' | 'dataFd' | 'progress'>;

export function makePresentations(
  backend: MigratableDevice,
  memory: PresentationMemory,
  options: PresentationOptions,
): Presentations {
  const { roundTrip, segmentation, offerP2P, countStopCopy, holdPrecopy, onError, v1: habits, warn } = options;
  const sized = options.bufferSize === undefined ? {} : { bufferSize: options.bufferSize };
  const part = (name: Part): Uint8Array => {
    const { offset, size } = deviceArena[name];
    return memory.arena.subarray(offset, offset + size);
  };
  const shown = (device: V2Device, state: Uint8Array): V1Device =>
    presentV1(device, {
      dataSection: memory.section(),
      ...sized,
      state,
      onError,
      pendingIncludesStopCopy: countStopCopy,
      holdPrecopy,
      warn,
    });
  const toV2 = (device: V1Device, carry: Uint8Array, state: Uint8Array): V2Device => {
    const isDriver = device === backend.device;
    const live = isDriver ? memory.live : undefined;
    // presentV1, inside a round trip, loads on 4 to 0 too, and November 2018 has a state for that
    const known = isDriver ? habits : { stopBySaving: false, stopAfterLoad: backend.protocol !== 'draft-2019' };
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
  const inFront: typeof toV2 = (...of) => (offerP2P ? options.offered(toV2(...of)) : toV2(...of));
  const watched = (v1: V1Device): V1Device =>
    observe({ protocol: 'v1', device: v1 }, options.watched(v1), untimed).device;
  const asSeen = (v1: V1Device, v2: V2Device): { region: V1Device; v2: V2Device } => ({
    region: watched(v1),
    v2: observe({ protocol: 'v2', device: v2 }, options.watched(undefined), untimed).device,
  });

  const asDraft = (draft: Draft): Presentations => {
    const isV2 = backend.protocol === 'v2';
    const v1 = isV2
      ? presentV1(options.together(backend.device), {
          dataSection: memory.inner(),
          // what the VMM takes for one buffer is a whole data section, if that is left
          ...(draft === 'draft-2019' && { bufferSize: memory.inner().length }),
          state: part('presentV1'),
          onError,
          pendingIncludesStopCopy: countStopCopy,
          holdPrecopy,
          warn,
        })
      : inV1(backend, part);
    const present = draft === 'draft-2018' ? presentDraft2018 : presentDraft2019;
    const loadsOnStop = isV2 || (backend.protocol === 'v1' ? habits.stopAfterLoad : backend.protocol === 'draft-2018');
    const live = backend.protocol === 'v1' ? memory.live : undefined; // of what stands on the driver itself
    const twin = (): V1Device =>
      fromDraft(
        present(v1, {
          dataSection: memory.twin(),
          aside: memory.carryOuter(),
          state: part('presentTwin'),
          stopAfterLoad: loadsOnStop,
          warn,
          ...(live && { live }),
        }),
        { state: part('fromTwin'), warn },
      );
    const below = roundTrip ? twin() : v1;
    const drafted = present(watched(below), {
      dataSection: memory.section(),
      aside: memory.carry(),
      state: part('presentDraft'),
      stopAfterLoad: roundTrip ? draft === 'draft-2018' : loadsOnStop,
      warn,
      ...(options.dirty && { dirty: options.dirty }),
      ...(live && !roundTrip && { live }),
    });
    const { seen } = options;
    const region = seen === undefined ? drafted : new ObservedDraft(drafted, seen, untimed);
    return { region, v2: undefined, outermost: region };
  };

  const { present } = options;
  if (isDraft(present)) return asDraft(present);
  if (backend.protocol === 'v2') {
    const driver = options.together(backend.device);
    const inside = (): V1Device =>
      presentV1(driver, { dataSection: memory.inner(), ...sized, state: part('presentV1'), onError, warn });
    const v2 = roundTrip ? inFront(inside(), memory.carry(), part('presentV2')) : backend.device;
    const seen = asSeen(shown(roundTrip ? v2 : driver, part('outer')), v2);
    return { ...seen, outermost: seen.region };
  }
  const driver = inV1(backend, part);
  const v1 = roundTrip ? shown(toV2(driver, memory.carry(), part('presentV2')), part('presentV1')) : driver;
  const v2 = roundTrip
    ? inFront(v1, memory.carryOuter(), part('outer'))
    : inFront(v1, memory.carry(), part('presentV2'));
  const seen = asSeen(v1, v2);
  return { ...seen, outermost: seen.v2 };
}

/** A device with a migration region in v1. */
function inV1(
  backend: Exclude<MigratableDevice, { readonly protocol: 'v2' }>,
  part: (name: Part) => Uint8Array,
): V1Device {
  return backend.protocol === 'v1' ? backend.device : fromDraft(backend.device, { state: part('fromDraft') });
}
