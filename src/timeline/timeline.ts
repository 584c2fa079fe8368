import type { RecordingHeader } from '../recording/format.ts';
import type { RecordingEntry } from '../recording/reader.ts';
import { clocksOf, type Clock } from './clocks.ts';
import { downtimesOf, type Downtime } from './downtime.ts';
import type { Flag } from './flags.ts';
import type { Mark } from './marks.ts';
import { notesOf } from './notes.ts';
import type { Row } from './states.ts';
import { surveyOf, type Lane, type Survey } from './survey.ts';

/** What is drawn: recordings on one axis. Times are microseconds from where the first recording begins. */
export interface Timeline {
  readonly recordings: readonly PlacedRecording[];
  readonly downtimes: readonly Downtime[];
  /** All that was recorded. */
  readonly whole: Range;
  /** The part of it in which something migrates. */
  readonly migration: Range;
  /** Microseconds since 1970, UTC, at 0. */
  readonly realtime: number;
  /** What has to be known to believe the picture, in sentences. */
  readonly notes: readonly string[];
}

/** A stretch of time, in microseconds of the axis. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

/** A recording, with its times as they are on the axis. */
export interface PlacedRecording extends Range {
  readonly header: RecordingHeader;
  readonly role: 'source' | 'destination' | 'both ends' | 'no migration';
  readonly clock: Clock;
  readonly lanes: readonly Lane[];
  readonly flags: readonly Flag[];
  /** What is added to a time of the recording, to have it on the axis. */
  readonly shift: number;
}

/** Reads recordings, in bounded memory, and puts them side by side. Throws what `readRecording` throws, with nothing drawn. */
export function readTimeline(recordings: readonly Iterable<RecordingEntry>[]): Timeline {
  const surveys = recordings.map(surveyOf);
  const clocks = clocksOf(surveys);
  const shiftOf = (n: number): number => clocks[n]?.shift ?? 0;
  const origin = Math.min(...surveys.map(({ begin }, n) => begin + shiftOf(n)));
  const placed = surveys.map((survey, n) => place(survey, clocks[n], shiftOf(n) - origin));
  const whole = {
    begin: Math.min(...placed.map(({ begin }) => begin)),
    end: Math.max(...placed.map(({ end }) => end)),
  };
  const downtimes = downtimesOf(placed);
  return {
    recordings: placed,
    downtimes,
    whole,
    migration: migrationOf(placed, downtimes, whole),
    realtime: origin,
    notes: notesOf(surveys, placed),
  };
}

function place(survey: Survey, clock: Clock = { shift: 0, moved: 0, by: 'realtime' }, shift: number): PlacedRecording {
  return {
    header: survey.header,
    role: roleOf(survey.lanes),
    clock,
    shift,
    begin: survey.begin + shift,
    end: survey.end + shift,
    lanes: survey.lanes.map((lane) => ({
      ...lane,
      rows: lane.rows.map((row) => placeRow(row, shift)),
      marks: lane.marks.map((mark) => placeMark(mark, shift)),
    })),
    flags: survey.flags.map((flag) => ({ ...flag, time: flag.time + shift })),
  };
}

function placeMark(mark: Mark, shift: number): Mark {
  const moved = mark.moved < 0 ? -1 : mark.moved + shift;
  return { ...mark, begin: mark.begin + shift, end: mark.end + shift, moved };
}

function placeRow(row: Row, shift: number): Row {
  const spans = row.spans.map((span) => ({
    ...span,
    asked: span.asked + shift,
    begin: span.begin + shift,
    end: span.end + shift,
  }));
  return { ...row, spans };
}

function roleOf(lanes: readonly Lane[]): PlacedRecording['role'] {
  const isOut = lanes.some(({ out }) => out > 0);
  const isIn = lanes.some((lane) => lane.in > 0);
  if (isOut) return isIn ? 'both ends' : 'source';
  return isIn ? 'destination' : 'no migration';
}

/** How much is shown before and behind a migration, as a part of it. */
const MARGIN = 0.04;

/** From where the first device leaves RUNNING until data moves no more and, if that is known, all devices run again. */
function migrationOf(recordings: readonly PlacedRecording[], downtimes: readonly Downtime[], whole: Range): Range {
  const lanes = recordings.flatMap((recording) => recording.lanes);
  const left = lanes.flatMap(({ rows }) =>
    rows.flatMap(({ spans }) => spans.find(({ phase }) => phase !== 'running')?.asked ?? []),
  );
  const moving = lanes.flatMap(({ marks }) => lastMove(marks));
  if (left.length === 0 || moving.length === 0) return whole;
  const begin = Math.min(...left);
  const end = Math.max(...moving, ...downtimes.map((downtime) => downtime.end));
  const margin = (end - begin) * MARGIN;
  return { begin: Math.max(whole.begin, begin - margin), end: Math.min(whole.end, end + margin) };
}

function lastMove(marks: readonly Mark[]): number[] {
  return marks
    .filter(({ moved }) => moved >= 0)
    .map(({ end }) => end)
    .slice(-1);
}
