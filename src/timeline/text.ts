import { duration, size } from '../recording/text.ts';
import { wellFormed } from './escape.ts';
import { laneName, recordingName, statesIn, titleOf, whose } from './names.ts';
import { PHASES, type Phase } from './phases.ts';
import type { Row, Span } from './states.ts';
import type { Lane } from './survey.ts';
import type { PlacedRecording, Range, Timeline } from './timeline.ts';

/** Options of textOf(). */
export interface TextOptions {
  /** Of the terminal. */
  readonly columns: number;
  /** With the colours of a terminal that has 256. */
  readonly colour: boolean;
  /** What is shown. Default: the migration. */
  readonly range?: Range;
}

const LEFT = 16;
/** Below that a drawing says nothing. */
const LEAST = 20;
const BARS = '▁▂▃▄▅▆▇█';

/** The picture for a terminal: a letter for each state, and colours if it has them. */
export function textOf(timeline: Timeline, { columns, colour, range = timeline.migration }: TextOptions): string {
  const canvas = new Canvas(range, Math.max(LEAST, columns - LEFT - 1), colour);
  const enlarged = timeline.downtimes.filter(
    ({ begin, end }) => canvas.cellOf(end) - canvas.cellOf(begin) < canvas.width / 4,
  );
  const drawings = [
    drawing(timeline, canvas),
    ...enlarged.map(
      (downtime) => `\nThe downtime, enlarged:\n${drawing(timeline, new Canvas(downtime, canvas.width, colour))}`,
    ),
  ];
  const legend = Array.from(
    statesIn(timeline),
    ([phase, state]) => `${canvas.sign(phase)} ${state} (${PHASES[phase].words})`,
  );
  return [titleOf(timeline), ...drawings, ...wrapped(legend, columns), ...timeline.notes]
    .map((line) => `${line}\n`)
    .join('');
}

/** What lies between two times, in cells. */
class Canvas {
  readonly width: number;
  readonly #range: Range;
  readonly #colour: boolean;

  constructor(range: Range, width: number, colour: boolean) {
    this.#range = range;
    this.width = width;
    this.#colour = colour;
  }

  get begin(): number {
    return this.#range.begin;
  }

  get us(): number {
    return this.#range.end - this.#range.begin;
  }

  isIn(time: number): boolean {
    return time >= this.#range.begin && time <= this.#range.end;
  }

  cellOf(time: number): number {
    const at = ((time - this.#range.begin) / Math.max(1, this.us)) * this.width;
    return Math.min(this.width - 1, Math.max(0, Math.floor(at)));
  }

  sign(phase: Phase): string {
    const { letter, terminal } = PHASES[phase];
    return this.#colour ? `\u001B[30;48;5;${terminal}m${letter}\u001B[0m` : letter;
  }
}

function drawing(timeline: Timeline, canvas: Canvas): string {
  return [
    ...timeline.downtimes.map(({ begin, end }) => line('downtime', downtimeCells(begin, end, canvas))),
    ...timeline.recordings.flatMap((recording) => recordingLines(recording, canvas)),
    line('', ['0', duration(Math.round(canvas.us)).padStart(canvas.width - 1)]),
  ].join('\n');
}

function line(name: string, cells: readonly string[]): string {
  return `${name.padStart(LEFT - 1).slice(0, LEFT - 1)} ${cells.join('').trimEnd()}`;
}

function blank(canvas: Canvas): string[] {
  return Array.from({ length: canvas.width }, () => ' ');
}

function downtimeCells(begin: number, end: number, canvas: Canvas): string[] {
  const cells = blank(canvas);
  const from = canvas.cellOf(begin);
  const to = canvas.cellOf(end);
  for (let n = from; n <= to; n += 1) cells[n] = '─';
  cells[from] = '├';
  cells[to] = '┤';
  const text = ` ${duration(Math.round(end - begin))} `;
  const fits = to - from > text.length + 1;
  const at = fits ? from + Math.floor((to - from - text.length) / 2) + 1 : Math.min(to + 1, canvas.width - text.length);
  if (at >= 0) cells.splice(at, text.length, ...text.split(''));
  return cells;
}

function recordingLines(recording: PlacedRecording, canvas: Canvas): string[] {
  const { lanes, flags } = recording;
  const shown = flags.filter(({ time }) => canvas.isIn(time));
  const cells = blank(canvas);
  for (const { time, kind } of shown) cells[canvas.cellOf(time)] = SIGNS[kind];
  return [
    wellFormed(recordingName(recording)),
    ...lanes.flatMap((lane) => laneLines(lane, canvas)),
    ...(shown.length === 0 ? [] : [line('', cells)]),
    ...shown
      .slice(0, MAX_TOLD)
      .map(
        ({ time, kind, text, device = '' }) =>
          `${SIGNS[kind]} at ${duration(Math.round(time - canvas.begin))}: ${wellFormed(`${device} ${text}`.trim())}`,
      ),
  ];
}

const SIGNS = { error: '!', takeover: 'T', end: 'X' } as const;
/** Of the flags, so many are told in words. */
const MAX_TOLD = 8;

function laneLines(lane: Lane, canvas: Canvas): string[] {
  const moved = lane.out + lane.in;
  return [
    `  ${wellFormed(laneName(lane))}`,
    ...lane.rows.map((row) => line(whose(row), rowCells(row, canvas))),
    line('calls', callCells(lane, canvas)),
    ...(moved > 0 ? [line(`${size(moved)} ${lane.out > 0 ? 'out' : 'in'}`, byteCells(lane, canvas))] : []),
  ];
}

/** Short states last, so that none is lost below a longer one. */
function rowCells({ spans }: Row, canvas: Canvas): string[] {
  const cells = blank(canvas);
  const shown = spans.filter(({ begin, end }) => canvas.isIn(begin) || (begin < canvas.begin && end >= canvas.begin));
  for (const { phase, begin, end } of byLength(shown)) {
    cells.fill(canvas.sign(phase), canvas.cellOf(begin), canvas.cellOf(end) + 1);
  }
  return cells;
}

/** The longest first. */
function byLength(spans: Span[]): Span[] {
  return spans.sort((one, other) => other.end - other.begin - (one.end - one.begin));
}

function callCells({ marks }: Lane, canvas: Canvas): string[] {
  const counts = Array.from({ length: canvas.width }, () => 0);
  for (const { begin, calls } of marks) {
    if (canvas.isIn(begin)) counts[canvas.cellOf(begin)] = (counts[canvas.cellOf(begin)] ?? 0) + calls;
  }
  const most = Math.max(2, ...counts);
  return counts.map((calls) => bar(calls === 0 ? 0 : Math.max(0.1, Math.log(calls) / Math.log(most))));
}

function byteCells(lane: Lane, canvas: Canvas): string[] {
  const cells = Array.from({ length: canvas.width }, () => 0);
  let bytes = 0;
  for (const mark of lane.marks) {
    bytes += mark.out + mark.in;
    if (mark.begin <= canvas.begin + canvas.us) cells.fill(bytes, canvas.cellOf(mark.begin));
  }
  return cells.map((each) => bar(each / (lane.out + lane.in)));
}

/** A part of a whole, as high as that; nothing if it is 0. */
function bar(part: number): string {
  return part === 0 ? ' ' : (BARS[Math.min(BARS.length - 1, Math.floor(part * BARS.length))] ?? ' ');
}

function wrapped(words: readonly string[], columns: number): string[] {
  const lines: string[] = [];
  let length = columns;
  for (const word of words) {
    const visible = word.replaceAll(/\u001B\[[\d;]*m/g, '').length + 2; // oxlint-disable-line no-control-regex -- of sign()
    if (length + visible > columns) {
      lines.push(word);
      length = visible;
    } else {
      lines[lines.length - 1] += `, ${word}`;
      length += visible;
    }
  }
  return lines;
}
