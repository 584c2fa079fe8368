import { VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE } from '../../abi/vfio-user.ts';
import { DEVICE_ARENA_SIZE } from '../../interpose/memory/journal.ts';
import { makePresentations } from '../../interpose/serve/presentations.ts';
import type { DeviceEvent } from '../../device/device-event.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { createSharedMemory, mapSharedMemory, vacate } from '../../sys/memory.ts';
import type { V1Device } from '../../v1/device.ts';
import { DATA_OFFSET } from '../../v1/region.ts';
import type { V2Device } from '../../v2/device.ts';
import { V2 } from '../../v2/states.ts';
import { ResettableV1 } from './guarded-v1.ts';
import { SteadyV1, SteadyV2, type Steady } from './steady-state.ts';
import { WithoutPrecopy } from './without-precopy.ts';

export interface TranslationOptions {
  readonly present: 'v1' | 'v2' | 'auto';
  readonly roundTrip: boolean;
  readonly segmentation: 'raw' | 'framed';
  /** What a v2 server gives in pre-copy is not handed on. */
  readonly dropPrecopy: boolean;
  /** Bytes of the data section of a migration region that is shown. */
  readonly dataSection: number;
  readonly warn: (message: string) => void;
  /** Who hears of calls on the server's device, and of commands that go there as they are. */
  readonly recorder?: ForwardObserver | undefined;
}

/** Hears what is asked of a server. */
export interface ForwardObserver {
  driver(event: DeviceEvent): void;
  forwarded(): void;
}

/** A server's device in the protocols that are presented, and by which of them it is translated. */
export interface Translation {
  /** The migration region, if it is not the server's own. */
  readonly region: V1Device | undefined;
  /** The region as a client maps it: a file in which the data section lies where it lies in the region. */
  readonly regionFile: OwnedFd | undefined;
  /** The features, if they are not the server's own. */
  readonly v2: V2Device | undefined;
  /** In stop-and-copy, has a v1 server give the next buffer while the client takes what it has got. What fails is told by the next read. */
  readAhead(): void;
  /** In stop-and-copy, has a v2 server give the next buffer while the client takes the one of which it was told. */
  beginNext(): void;
  /** The client does something else than to move data: the device is asked for its state again. */
  somethingElse(): void;
  /** What resets all that is translated. */
  reset(): void;
  close(): void;
}

/** Bytes of the largest buffer that is shown: clients read one at once, and a message has no more. */
export const LARGEST_BUFFER: number = VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE;

/** No driver of libvfio-user takes device_state 0 to 2, or 4 to 0 (until September 2023, lib/migration_priv.h: migr_states). */
const HABITS = { stopBySaving: true, stopAfterLoad: false } as const;

/** Presents a device as a client of the other protocol sees it; in a round trip, of either. */
export function translate(found: MigratableDevice, options: TranslationOptions): Translation {
  const { present, roundTrip, dataSection, warn } = options;
  const { backend, steady } = steadied(adapted(found, options));
  const isShown = { v1: present !== 'v2', v2: present !== 'v1' };
  const isTranslated = (protocol: 'v1' | 'v2'): boolean =>
    isShown[protocol] && (roundTrip || backend.protocol !== protocol);
  const regionFile = isTranslated('v1') ? createSharedMemory('vfio-user-region', DATA_OFFSET + dataSection) : undefined;
  const memory = (): Uint8Array => new Uint8Array(dataSection);
  const mapping = regionFile && mapSharedMemory(regionFile.number, dataSection, DATA_OFFSET);
  const presentations = makePresentations(
    backend,
    {
      section: () => mapping?.bytes ?? memory(),
      inner: memory,
      carry: memory,
      carryOuter: memory,
      twin: memory,
      arena: new Uint8Array(DEVICE_ARENA_SIZE),
      live: undefined,
    },
    {
      present,
      roundTrip,
      segmentation: options.segmentation,
      offerP2P: false,
      countStopCopy: false,
      holdPrecopy: 0,
      bufferSize: LARGEST_BUFFER,
      onError: 'reset',
      v1: HABITS,
      dirty: undefined,
      together: (device) => device,
      offered: (device) => device,
      warn,
      watched: () => () => {},
    },
  );
  const { region, v2, outermost } = presentations;
  const shown = isTranslated('v1') && !('draft' in region) ? region : undefined;
  return {
    region: shown,
    regionFile,
    v2: isTranslated('v2') ? v2 : undefined,
    readAhead() {
      if (found.protocol !== 'v1' || v2?.getState() !== V2.STOP_COPY) return;
      v2.openSession()?.readAhead?.();
      found.device.readAhead?.();
    },
    beginNext() {
      if (found.protocol === 'v2' && !roundTrip) shown?.readAhead?.();
    },
    somethingElse: () => steady?.forget(),
    reset: () => outermost.reset(),
    close() {
      regionFile?.close();
      if (mapping !== undefined) vacate(mapping.address, dataSection); // SAFETY: the mapping stays, as objects refer to it that nobody uses any more
    },
  };
}

function steadied(found: MigratableDevice): {
  readonly backend: MigratableDevice;
  readonly steady: Steady | undefined;
} {
  if (found.protocol === 'v1') {
    const device = new SteadyV1(found.device);
    return { backend: { protocol: 'v1', device }, steady: device };
  }
  if (found.protocol !== 'v2') return { backend: found, steady: undefined };
  const device = new SteadyV2(found.device);
  return { backend: { protocol: 'v2', device }, steady: device };
}

function adapted(found: MigratableDevice, { dropPrecopy }: TranslationOptions): MigratableDevice {
  if (found.protocol === 'v1') return { protocol: 'v1', device: new ResettableV1(found.device) };
  if (found.protocol === 'v2' && dropPrecopy) return { protocol: 'v2', device: new WithoutPrecopy(found.device) };
  return found;
}
