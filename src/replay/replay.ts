import { ShimError } from '../error.ts';
import { stateIn } from '../device/device-event.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import type { DeviceCall, RecordingHeader } from '../recording/format.ts';
import { callText } from '../recording/text.ts';
import { isDraft } from '../v1/drafts/device.ts';
import { differencesOf, type Aspect, type Difference } from './compare.ts';
import { DataFile, headerOf, linesOfFile, stepOf, type RecordedStep } from '../recorded/file.ts';
import { RecordedVmm } from './recorded-vmm.ts';

/** A device of a recording that somebody used. */
export interface UsedDevice {
  readonly name: string;
  /** What it was: of an emulated device its SPEC. `null` for a device of the kernel, of which a run is not told beforehand. */
  readonly device: string | null;
  readonly calls: number;
}

/** A recording, as far as it has to be known before anything is asked of a device. */
export interface Replayable {
  readonly file: string;
  readonly header: RecordingHeader;
  readonly devices: readonly UsedDevice[];
}

export interface ReplayOptions {
  /** Compare every answer, those too that may differ from one run to the next. */
  readonly strict: boolean;
  /** The migration data of this device are those of the recorded one, as of two simulated devices with the same SPEC. */
  readonly contents: boolean;
  readonly warn: (message: string) => void;
}

/** A call whose answer is another one now. */
export interface FoundDifference extends Difference {
  readonly line: number;
  readonly call: string;
}

/** What became of a device of a recording. */
export interface DeviceReplay {
  readonly name: string;
  readonly calls: number;
  readonly replayed: number;
  /** Why other calls were not made, and how many. */
  readonly skipped: Readonly<Record<Skipped, number>>;
  /** The migration data were compared. */
  readonly contents: boolean;
  /** From this line on, a session's data were others than recorded, as a guest or the time decides them in pre-copy, and were compared no more. */
  readonly departed: number | null;
  readonly differences: readonly FoundDifference[];
  readonly differencesOmitted: number;
}

/** `unknown`: a recording does not say how the call was made. `lost`: the device was no longer where the VMM had it. */
export type Skipped = 'unknown' | 'lost';

/**
 * Reads a recording once, and finds what is in it to be replayed. Throws `ERR_FEATURE_UNSUPPORTED` for what cannot be, and `ERR_ARGUMENT`
 * if the VMM gave data that were not kept.
 */
export function replayable(file: string): Replayable {
  const header = headerOf(file);
  const given = new GivenBefore();
  const calls = new Map<string, number>(header.devices.map(({ name }) => [name, 0]));
  for (const numbered of linesOfFile(file)) {
    const device = 'device' in numbered.entry ? numbered.entry.device : undefined;
    const step = device === undefined ? undefined : stepOf(numbered, device, header);
    if (step === undefined || device === undefined) continue;
    check(file, step, given.of(device, step.call));
    calls.set(device, (calls.get(device) ?? 0) + 1);
  }
  const devices = Array.from(calls, ([name, count]): UsedDevice => {
    const known = header.devices.find((each) => each.name === name);
    return { name, device: known?.device ?? null, calls: count };
  }).filter(({ calls: count }) => count > 0);
  if (devices.length > 0) return { file, header, devices };
  throw new ShimError('ERR_FEATURE_UNSUPPORTED', `${file}: nobody used a device while this was recorded`);
}

function check(file: string, { line, call, data }: RecordedStep, isGiven: boolean): void {
  if (isDraft(call.protocol)) {
    throw new ShimError(
      'ERR_FEATURE_UNSUPPORTED',
      `${file}: line ${line}: the VMM spoke ${call.protocol}; v1 and v2 can be replayed`,
    );
  }
  if (!gives(call) || data?.at !== undefined || isGiven) return;
  throw new ShimError(
    'ERR_ARGUMENT',
    `${file}: line ${line}: the VMM gave data to the device, which this recording has not kept; record with --record-data`,
  );
}

/** Of a v1 device whose data section nobody maps, a buffer is given by writes to that: its size comes afterwards, and gives no more. */
class GivenBefore {
  /** By device, the bytes that were written since a size was. */
  readonly #bytes = new Map<string, number>();

  /** Notes a call, and says whether it is the size of a buffer that was given before. */
  of(device: string, call: DeviceCall): boolean {
    if (!gives(call)) return false;
    const before = this.#bytes.get(device) ?? 0;
    if (call.call === 'data') this.#bytes.set(device, before + (call.bytes ?? 0));
    if (call.call !== 'register') return false;
    this.#bytes.delete(device);
    return call.value !== undefined && before >= call.value;
  }
}

/** A call that has given migration data to the device. What a device has refused is not recorded. */
function gives(call: DeviceCall): boolean {
  if (call.errno !== undefined) return false;
  if (call.call === 'data') return call.direction === 'in' && (call.bytes ?? 0) > 0;
  return call.call === 'register' && call.access === 'write' && call.register === 'data_size' && call.value > 0;
}

/** Does to a device what was done to the named one, and compares. */
export function replayDevice(
  { file, header }: Replayable,
  { name, calls }: UsedDevice,
  device: MigratableDevice,
  options: ReplayOptions,
): DeviceReplay {
  const replay = new Replay(new RecordedVmm(device, header, options.warn), options);
  let data: DataFile | undefined;
  try {
    for (const numbered of linesOfFile(file)) {
      const { line, entry } = numbered;
      if (entry.kind === 'opened' && entry.device === name) replay.open();
      const step = stepOf(numbered, name, header);
      if (step === undefined) continue;
      const given = gives(step.call) && step.data ? (data ??= new DataFile(file)).read(step.data, line) : undefined;
      replay.step(step, given);
    }
  } finally {
    data?.[Symbol.dispose]();
  }
  return { name, calls, ...replay.result };
}

/** More are counted. */
const LISTED = 100;

/** One device's calls, one after the other, and what they come to. */
class Replay {
  readonly #vmm: RecordedVmm;
  readonly #options: ReplayOptions;
  readonly #differences: FoundDifference[] = [];
  readonly #skipped: Record<Skipped, number> = { unknown: 0, lost: 0 };
  #replayed = 0;
  #omitted = 0;
  /** The state that the recorded device was last seen in. */
  #state = 'RUNNING';
  /** In this session, everything has been as it was recorded. */
  #isAligned = true;
  /** This session has begun while the device ran: how much is left for stop-and-copy depends on the guest and the time. */
  #hadPreCopy = false;
  #departed: number | null = null;
  /** The device is not where the recorded one was, and what the VMM did next makes no sense. */
  #isLost = false;

  constructor(vmm: RecordedVmm, options: ReplayOptions) {
    this.#vmm = vmm;
    this.#options = options;
  }

  open(): void {
    this.#vmm.open();
    this.#found('RUNNING');
    this.#isLost = false;
  }

  step({ line, call, data }: RecordedStep, given: Uint8Array | undefined): void {
    if (call.call === 'reset') this.#isLost = false;
    if (this.#isLost || call.errno === 'EAGAIN') {
      this.#skipped[this.#isLost ? 'lost' : 'unknown'] += 1;
      return;
    }
    const refused = isRefusedData(call);
    const answer = refused ? undefined : this.#vmm.make(call, given, data !== undefined);
    if (refused) this.#isAligned = false;
    if (answer === undefined) {
      this.#skipped.unknown += 1;
      return;
    }
    this.#replayed += 1;
    const differences = differencesOf({ call, data }, answer);
    for (const each of differences) if (this.#counts(each.aspect)) this.#note(line, call, each);
    if (differences.some(({ aspect }) => this.#isDeparture(aspect))) this.#depart(line);
    // what a device has not taken, it cannot load
    const isState = ({ aspect }: Difference): boolean =>
      aspect === 'state' || (aspect === 'errno' && (changes(call) || gives(call)));
    if (differences.some(isState)) this.#isLost = true;
    this.#found(stateIn({ ...call, time: 0 }));
  }

  get result(): Omit<DeviceReplay, 'name' | 'calls'> {
    return {
      replayed: this.#replayed,
      skipped: this.#skipped,
      contents: this.#options.contents || this.#options.strict,
      departed: this.#departed,
      differences: this.#differences,
      differencesOmitted: this.#omitted,
    };
  }

  /** Which answers the protocols, and a device at rest, leave no choice about. */
  #counts(aspect: Aspect): boolean {
    const { strict, contents } = this.#options;
    if (strict) return true;
    switch (aspect) {
      case 'errno':
      case 'state':
        return true;
      case 'size':
      case 'rest':
        return this.#isAligned && !MOVING.has(this.#state) && (contents || !this.#hadPreCopy);
      case 'contents':
        return this.#isAligned && contents;
      default:
        return false;
    }
  }

  /** The data of this session are others from now on: by their amount, or by what is to come in pre-copy, or by what counts. */
  #isDeparture(aspect: Aspect): boolean {
    if (aspect === 'contents') return this.#counts(aspect);
    return aspect === 'size' || aspect === 'rest' || (aspect === 'estimate' && isPreCopy(this.#state));
  }

  #depart(line: number): void {
    this.#isAligned = false;
    this.#departed ??= line;
  }

  /** Notes the state; a session that begins has a new stream. */
  #found(state: string | undefined): void {
    if (state === undefined || state === this.#state) return;
    if (!(isSaving(state) && isSaving(this.#state))) {
      this.#isAligned = true;
      this.#hadPreCopy = false;
    }
    if (isPreCopy(state)) this.#hadPreCopy = true;
    this.#state = state;
  }

  #note(line: number, call: DeviceCall, difference: Difference): void {
    if (this.#differences.length === LISTED) this.#omitted += 1;
    else this.#differences.push({ line, call: callText(call), ...difference });
  }
}

/** The states in which a device runs, and what it has to say depends on the guest and the time. */
const MOVING: ReadonlySet<string> = new Set(['RUNNING', 'RUNNING_P2P', 'PRE_COPY', 'PRE_COPY_P2P']);

function isPreCopy(state: string): boolean {
  return state === 'PRE_COPY' || state === 'PRE_COPY_P2P';
}

function isSaving(state: string): boolean {
  return isPreCopy(state) || state === 'STOP_COPY';
}

/** Data that the recorded device has refused, which a recording has not got. */
function isRefusedData(call: DeviceCall): boolean {
  if (call.errno === undefined) return false;
  if (call.call === 'data') return call.direction === 'in';
  return call.call === 'register' && call.access === 'write' && call.register === 'data_size';
}

/** A call that is to change the device's state. */
function changes(call: DeviceCall): boolean {
  if (call.call === 'register') return call.access === 'write' && call.register === 'device_state';
  return call.call === 'set-state' || call.call === 'reset';
}
