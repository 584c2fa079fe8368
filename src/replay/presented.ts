import { ShimError } from '../error.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import type { DeviceSink } from '../device/observe.ts';
import { DEVICE_ARENA_SIZE } from '../interpose/memory/journal.ts';
import { makePresentations } from '../interpose/serve/presentations.ts';
import type { RecordingHeader } from '../recording/format.ts';
import type { V1Device } from '../v1/device.ts';
import { V1RegisterAccess } from '../v1/registers.ts';
import { inLargestPages } from '../v1/region.ts';
import { V1 } from '../v1/states.ts';
import type { V2Device } from '../v2/device.ts';

/** A device as `run` presents it to a VMM, in both protocols, and what the VMM gets when it opens it. */
export interface Presented {
  readonly v1: V1Device;
  readonly v2: V2Device;
  /** As for a user who opens the device (interpose/serve/served-device.ts: firstLook). */
  open(): void;
}

/** Presents a device with the options of the recorded command, in memory of this process. `sink` is told of what the VMM asks. */
export function presented(
  backend: MigratableDevice,
  { options }: RecordingHeader,
  sink: DeviceSink,
  warn: (message: string) => void,
): Presented {
  const size =
    backend.protocol === 'v2' ? sectionSize(options['data-size']) : inLargestPages(backend.device.dataSection.size);
  const hold = options['hold-precopy'];
  const lazily = (): (() => Uint8Array) => {
    let memory: Uint8Array | undefined;
    return () => (memory ??= new Uint8Array(size));
  };
  const is = (name: string): boolean => options[name] === true;
  const { region, v2, outermost } = makePresentations(
    backend,
    {
      section: lazily(),
      inner: lazily(),
      carry: lazily(),
      carryOuter: lazily(),
      twin: lazily(),
      arena: new Uint8Array(DEVICE_ARENA_SIZE),
      live: undefined,
    },
    {
      present: 'auto',
      roundTrip: is('round-trip'),
      segmentation: options['segmentation'] === 'framed' ? 'framed' : 'raw',
      offerP2P: is('offer-p2p'),
      countStopCopy: is('count-stop-copy'),
      holdPrecopy: typeof hold === 'number' ? hold : 0,
      bufferSize: bufferSize(options['buffer-size']),
      onError: options['on-error'] === 'report' ? 'report' : 'reset',
      v1: { stopBySaving: is('v1-stop-by-saving'), stopAfterLoad: is('v1-stop-after-load') },
      dirty: undefined,
      together: (device) => device, // the device is alone
      offered: (device) => device,
      warn,
      watched: () => sink,
    },
  );
  const v1 = region as V1Device; // a draft is presented only if it is asked for
  if (v2 === undefined) throw new Error('both protocols are presented');
  return {
    v1,
    v2,
    open() {
      outermost.reset();
      v2.precopyInfoV2?.(false);
      if ('regionSize' in outermost) giveUp(v1);
    },
  };
}

/** What `run --data-size` is by default, and at most. */
const [USUAL_SECTION, LARGEST_SECTION] = [16 * 2 ** 20, 2 ** 30];

/** Bytes of the data section that the recorded `run` had; `save` and `restore` have none. */
function sectionSize(recorded: unknown): number {
  if (recorded === undefined) return USUAL_SECTION;
  if (typeof recorded === 'number' && recorded > 0 && recorded <= LARGEST_SECTION && recorded % 4096 === 0)
    return recorded;
  throw new ShimError('ERR_FILE_CORRUPT', `recording: its data-size is ${JSON.stringify(recorded)}`, {
    errno: 'EINVAL',
  });
}

/** The most bytes that one buffer of v1 was to show; commands that let buffers grow say nothing. */
function bufferSize(recorded: unknown): number | undefined {
  if (recorded === undefined) return undefined;
  if (typeof recorded === 'number' && Number.isSafeInteger(recorded) && recorded > 0) return recorded;
  throw new ShimError('ERR_FILE_CORRUPT', `recording: its buffer-size is ${JSON.stringify(recorded)}`, {
    errno: 'EINVAL',
  });
}

/** What a bridge would tell an earlier user of a session that a reset has ended is not for the new one. */
function giveUp(device: V1Device): void {
  try {
    new V1RegisterAccess(device).setDeviceState(V1.RUNNING);
  } catch {
    // it has been told
  }
}
