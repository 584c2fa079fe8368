import { ShimError } from '../error.ts';
import { isOfVmm, type AccessLine, type DriverLine, type RecordingHeader } from '../recording/format.ts';
import type { RecordingEntry } from '../recording/reader.ts';
import { callText } from '../recording/text.ts';
import { failureIn, MAX_FLAGS, type Flag } from './flags.ts';
import { Marks, type Mark } from './marks.ts';
import { RowMaker, type Row } from './states.ts';

/** What one recording says, in its own time. */
export interface Survey {
  readonly header: RecordingHeader;
  readonly begin: number;
  readonly end: number;
  readonly lanes: readonly Lane[];
  readonly flags: readonly Flag[];
  readonly flagsOmitted: number;
  /** There are more devices than lanes. */
  readonly lanesOmitted: boolean;
}

/** A device at one end. */
export interface Lane {
  /** Undefined: accesses to groups and containers. */
  readonly device: string | undefined;
  /** What the header says that it is: an emulated device's SPEC. */
  readonly what: string;
  readonly rows: readonly Row[];
  readonly marks: readonly Mark[];
  /** Bytes of migration data that left the device here. */
  readonly out: number;
  /** Bytes of migration data that came into it here. */
  readonly in: number;
}

/** As many devices as `run` takes. */
const MAX_LANES = 64;
/** Marks of a lane: more than a screen has columns. */
const MAX_MARKS = 4096;

/** Reads a recording to its end, in bounded memory. */
export function surveyOf(entries: Iterable<RecordingEntry>): Survey {
  let surveyor: Surveyor | undefined;
  for (const entry of entries) {
    if (entry.kind === 'recording') surveyor = new Surveyor(entry);
    else surveyor?.add(entry);
  }
  if (surveyor === undefined)
    throw new ShimError('ERR_FILE_CORRUPT', 'recording: line 1: is cut, so there is nothing to draw', {
      errno: 'EINVAL',
    });
  return surveyor.survey();
}

class Surveyor {
  readonly #header: RecordingHeader;
  readonly #lanes = new Map<string | undefined, LaneMaker>();
  readonly #flags: Flag[] = [];
  #lanesOmitted = false;
  #flagsOmitted = 0;
  #begin = Number.POSITIVE_INFINITY;
  #end = Number.NEGATIVE_INFINITY;

  constructor(header: RecordingHeader) {
    this.#header = header;
    this.#reach(header.monotonic);
  }

  add(entry: Exclude<RecordingEntry, RecordingHeader>): void {
    switch (entry.kind) {
      case 'access':
        this.#access(entry);
        return;
      case 'driver':
        this.#driver(entry);
        return;
      case 'opened':
        this.#reach(entry.time);
        this.#lane(entry.device)?.vmm.opened(entry.time);
        return;
      case 'closed':
        this.#reach(entry.time);
        return;
      case 'takeover':
        this.#flag({
          time: entry.time,
          kind: 'takeover',
          device: undefined,
          text: `the supervisor died (${entry.why})`,
        });
        return;
      case 'end':
        this.#reach(entry.time);
        if (entry.why !== 'ended')
          this.#flag({ time: entry.time, kind: 'end', device: undefined, text: ENDS[entry.why] });
        return;
      case 'cut':
        this.#flag({
          time: this.#end,
          kind: 'end',
          device: undefined,
          text: `the recording is cut in line ${entry.line}`,
        });
        return;
    }
  }

  survey(): Survey {
    return {
      header: this.#header,
      begin: this.#begin,
      end: this.#end,
      lanes: [...this.#devices(), ...this.#others()],
      flags: this.#flags,
      flagsOmitted: this.#flagsOmitted,
      lanesOmitted: this.#lanesOmitted,
    };
  }

  #devices(): Lane[] {
    return [...this.#lanes].filter(([device]) => device !== undefined).map(([, lane]) => lane.ended(this.#end));
  }

  /** What is accessed of groups and containers. */
  #others(): Lane[] {
    const lane = this.#lanes.get(undefined);
    return lane === undefined ? [] : [lane.ended(this.#end)];
  }

  #access(line: AccessLine): void {
    const { begin, us, device, call, errno, moved, driver = [] } = line;
    const end = begin + us;
    this.#reach(begin);
    this.#reach(end);
    const lane = this.#lane(device);
    if (call.protocol !== 'vfio' && errno === undefined) lane?.vmm.call(call, begin, end);
    for (const each of driver) this.#lane(each.device ?? device)?.driver.call(each, begin, each.time);
    const bytes = { out: 0, in: 0, ...(moved && { [moved.direction]: moved.bytes }) };
    const text = `${callText(call)}${errno === undefined ? '' : ` = ${errno}`}`.slice(0, MAX_TEXT);
    lane?.mark({ begin, end, calls: 1, busy: us, ...bytes, moved: moved === undefined ? -1 : begin, text });
    const failure = failureIn(line);
    if (failure !== undefined) this.#flag({ time: end, kind: 'error', device, text: failure.slice(0, MAX_TEXT) });
  }

  /** Of `save` and `restore` all lines are like this, and have the data that went out, or came in. */
  #driver({ time, device, call, data }: DriverLine): void {
    this.#reach(time);
    const lane = this.#lane(device);
    lane?.driver.call(call, time, time);
    const { command } = this.#header;
    if (isOfVmm(this.#header)) return;
    const bytes = { out: 0, in: 0, [command === 'save' ? 'out' : 'in']: data?.bytes ?? 0 };
    const moved = data === undefined ? -1 : time;
    lane?.mark({
      begin: time,
      end: time,
      calls: 1,
      busy: 0,
      ...bytes,
      moved,
      text: callText(call).slice(0, MAX_TEXT),
    });
    const failure = failureIn({ call, ...(call.errno && { errno: call.errno }) });
    if (failure !== undefined) this.#flag({ time, kind: 'error', device, text: failure });
  }

  #lane(device: string | undefined): LaneMaker | undefined {
    const known = this.#lanes.get(device);
    if (known !== undefined) return known;
    if (this.#lanes.size >= MAX_LANES) {
      this.#lanesOmitted = true;
      return undefined;
    }
    const what = this.#header.devices.find(({ name }) => name === device)?.device ?? '';
    const made = new LaneMaker(device, what === device ? '' : what);
    this.#lanes.set(device, made);
    return made;
  }

  #flag(flag: Flag): void {
    this.#reach(flag.time);
    if (this.#flags.length < MAX_FLAGS) this.#flags.push(flag);
    else this.#flagsOmitted += 1;
  }

  #reach(time: number): void {
    this.#begin = Math.min(this.#begin, time);
    this.#end = Math.max(this.#end, time);
  }
}

/** What a call is, in words, is no longer. */
const MAX_TEXT = 120;

const ENDS = {
  limit: 'the limit of the recording is reached',
  lost: 'lines were lost: nothing more was recorded',
} as const;

class LaneMaker {
  readonly vmm = new RowMaker('vmm');
  readonly driver = new RowMaker('driver');
  readonly #device: string | undefined;
  readonly #what: string;
  readonly #marks = new Marks(MAX_MARKS);
  #out = 0;
  #in = 0;

  constructor(device: string | undefined, what: string) {
    this.#device = device;
    this.#what = what;
  }

  mark(mark: Mark): void {
    this.#out += mark.out;
    this.#in += mark.in;
    this.#marks.add(mark);
  }

  ended(end: number): Lane {
    const rows = [this.vmm.ended(end), this.driver.ended(end)].filter(({ spans }) => spans.length > 0);
    return {
      device: this.#device,
      what: this.#what,
      rows,
      marks: this.#marks.list,
      out: this.#out,
      in: this.#in,
    };
  }
}
