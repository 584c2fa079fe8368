import { isOfVmm, type AccessLine, type RecordingLine } from '../recording/format.ts';
import type { RecordingEntry } from '../recording/reader.ts';
import { callText } from '../recording/text.ts';
import { laneName, recordingName, whose } from './names.ts';
import type { PlacedRecording, Timeline } from './timeline.ts';

/*
 * The trace event format that chrome://tracing brought up, and Perfetto and others open ("Trace Event Format", Google, 2016): one JSON
 * object, whose events may have any order. A recording is two processes in it: one has a thread for the states of each side, the other
 * has the VMM's threads, with their accesses.
 */

/** An event; times are microseconds. */
type TraceEvent = {
  readonly ph: 'M' | 'X' | 'C' | 'i';
  readonly name: string;
  readonly pid: number;
  readonly [field: string]: unknown;
};

/** The text, in pieces: `recordings` are those of the timeline once more, from their beginning, and need not fit into memory. */
export function* traceEventsOf(
  timeline: Timeline,
  recordings: Iterable<Iterable<RecordingEntry>>,
): Generator<string, void, undefined> {
  const { notes, realtime } = timeline;
  const otherData = JSON.stringify({ program: 'vfio-shim timeline', realtime, notes });
  yield `{"displayTimeUnit":"ms","otherData":${otherData},"traceEvents":[\n`;
  let n = 0;
  for (const event of eventsOf(timeline, recordings)) {
    yield `${n === 0 ? '' : ',\n'}${JSON.stringify(event)}`;
    n += 1;
  }
  yield '\n]}\n';
}

function* eventsOf(
  timeline: Timeline,
  recordings: Iterable<Iterable<RecordingEntry>>,
): Generator<TraceEvent, void, undefined> {
  yield* downtimeEvents(timeline);
  let n = 0;
  for (const entries of recordings) {
    const placed = timeline.recordings[n];
    if (placed === undefined) return;
    const states = 2 * n + 2;
    yield* stateEvents(placed, states, n);
    yield* accessEvents(placed, entries, { states, threads: states + 1 });
    n += 1;
  }
}

/** The process of the downtimes, in front of all others. */
const DOWNTIME = 1;

function* downtimeEvents({ downtimes }: Timeline): Generator<TraceEvent, void, undefined> {
  if (downtimes.length === 0) return;
  yield* named(DOWNTIME, 'downtime', 0);
  for (const { begin, end } of downtimes)
    yield { ph: 'X', name: 'downtime', cat: 'downtime', pid: DOWNTIME, tid: 1, ts: begin, dur: end - begin };
}

function* named(pid: number, name: string, order: number): Generator<TraceEvent, void, undefined> {
  yield { ph: 'M', name: 'process_name', pid, args: { name } };
  yield { ph: 'M', name: 'process_sort_index', pid, args: { sort_index: order } };
}

function* stateEvents(recording: PlacedRecording, pid: number, order: number): Generator<TraceEvent, void, undefined> {
  yield* named(pid, `${recordingName(recording)}: states`, 2 * order + 1);
  let tid = 0;
  for (const lane of recording.lanes) {
    for (const row of lane.rows) {
      tid += 1;
      yield { ph: 'M', name: 'thread_name', pid, tid, args: { name: `${laneName(lane)}, ${whose(row)}` } };
      yield { ph: 'M', name: 'thread_sort_index', pid, tid, args: { sort_index: tid } };
      for (const { state, phase, begin, end } of row.spans) {
        yield { ph: 'X', name: state, cat: 'state', pid, tid, ts: begin, dur: end - begin, args: { phase } };
      }
    }
  }
  for (const { time, kind, device, text } of recording.flags) {
    yield {
      ph: 'i',
      name: text,
      cat: kind,
      pid,
      tid: 0,
      ts: time,
      s: 'p',
      ...(device !== undefined && { args: { device } }),
    };
  }
}

interface Processes {
  readonly states: number;
  readonly threads: number;
}

function* accessEvents(
  recording: PlacedRecording,
  entries: Iterable<RecordingEntry>,
  { states, threads }: Processes,
): Generator<TraceEvent, void, undefined> {
  const { shift } = recording;
  const totals = new Map<string, number>();
  yield* named(threads, `${recordingName(recording)}: accesses of the VMM`, states);
  for (const entry of entries) {
    if (entry.kind === 'driver')
      yield {
        ph: 'i',
        name: callText(entry.call),
        cat: 'driver',
        pid: threads,
        tid: 0,
        ts: entry.time + shift,
        s: 't',
        args: { device: entry.device },
      };
    if (entry.kind === 'access') yield accessEvent(entry, threads, shift);
    const moved = movedBy(entry, recording);
    if (moved === undefined) continue;
    const { device, way, bytes, time } = moved;
    const name = `${device} bytes ${way}`;
    const total = (totals.get(name) ?? 0) + bytes;
    totals.set(name, total);
    yield { ph: 'C', name, pid: states, ts: time + shift, args: { bytes: total } };
  }
}

function accessEvent(line: AccessLine, pid: number, shift: number): TraceEvent {
  const { begin, us, tid, device, node, call, result, errno, retries, driver } = line;
  const args = {
    on: device ?? node,
    result: errno ?? result,
    retries,
    driver: driver?.map((each) => `${callText(each)}${each.errno === undefined ? '' : ` = ${each.errno}`}`),
  };
  return {
    ph: 'X',
    name: callText(call),
    cat: errno === undefined ? 'access' : 'access,error',
    pid,
    tid,
    ts: begin + shift,
    dur: us,
    args,
  };
}

interface Movement {
  readonly device: string;
  readonly way: 'out' | 'in';
  readonly bytes: number;
  readonly time: number;
}

function movedBy(
  entry: RecordingEntry,
  { header }: { readonly header: Extract<RecordingLine, { kind: 'recording' }> },
): Movement | undefined {
  if (entry.kind === 'access' && entry.moved !== undefined) {
    const { direction, bytes } = entry.moved;
    return { device: entry.device ?? '', way: direction, bytes, time: entry.begin };
  }
  if (entry.kind !== 'driver' || entry.data === undefined || isOfVmm(header)) return undefined;
  return {
    device: entry.device,
    way: header.command === 'save' ? 'out' : 'in',
    bytes: entry.data.bytes,
    time: entry.time,
  };
}
