import { duration, size } from '../recording/text.ts';
import { whose } from './names.ts';
import { PHASES } from './phases.ts';
import type { Row, Span } from './states.ts';
import { element, hint, label, rounded } from './svg-element.ts';
import type { Lane } from './survey.ts';
import type { Range } from './timeline.ts';

/** Where a time is in a panel. */
export interface Scale extends Range {
  readonly left: number;
  readonly width: number;
}

export function xOf(scale: Scale, time: number): number {
  return scale.left + ((time - scale.begin) / Math.max(1, scale.end - scale.begin)) * scale.width;
}

const ROW = 16;
const GAP = 3;
const TICKS = 9;
const CURVE = 34;
/** Of a letter, about. */
const LETTER = 6.4;

/** What a lane needs. */
export function laneHeight({ rows, out, in: into }: Lane): number {
  return rows.length * (ROW + GAP) + TICKS + GAP + (out + into > 0 ? CURVE + GAP : 0);
}

/** The states of both sides, below them the calls of the VMM, and below those the bytes that have moved. */
export function laneDrawing(lane: Lane, scale: Scale, top: number): string {
  const rows = lane.rows.map((row, n) => rowDrawing(row, scale, top + n * (ROW + GAP)));
  const below = top + rows.length * (ROW + GAP);
  const curve = lane.out + lane.in > 0 ? curveDrawing(lane, scale, below + TICKS + GAP) : '';
  return [...rows, ticksDrawing(lane, scale, below), curve].join('');
}

function rowDrawing(row: Row, scale: Scale, top: number): string {
  const name = label(scale.left - 8, top + 12, whose(row), { class: 'side' });
  const shown = row.spans.filter(({ begin, end }) => end >= scale.begin && begin <= scale.end);
  return [name, ...shown.map((span) => spanDrawing(span, scale, top))].join('');
}

function spanDrawing({ phase, state, begin, end }: Span, scale: Scale, top: number): string {
  const x = xOf(scale, Math.max(begin, scale.begin));
  const width = Math.max(0.75, xOf(scale, Math.min(end, scale.end)) - x);
  const { colour, words } = PHASES[phase];
  const said = `${state}: the device ${words}, for ${duration(Math.round(end - begin))}`;
  const box = element('rect', { x, y: top, width, height: ROW, fill: colour }, hint(said));
  const fits = width > state.length * LETTER + 6;
  return fits ? box + label(x + 4, top + 12, state, { class: 'state' }) : box;
}

/** A line for each column of the picture in which there are calls: the more of them, the higher. */
function ticksDrawing({ marks }: Lane, scale: Scale, top: number): string {
  const columns = new Map<number, number>();
  for (const { begin, end, calls } of marks) {
    if (end < scale.begin || begin > scale.end) continue;
    const column = Math.round(xOf(scale, Math.max(begin, scale.begin)));
    columns.set(column, (columns.get(column) ?? 0) + calls);
  }
  if (columns.size === 0) return '';
  const most = Math.max(...columns.values());
  const lines = Array.from(columns, ([x, calls]) => {
    const height = rounded(TICKS * (0.4 + (0.6 * Math.log(calls)) / Math.log(Math.max(most, 2))));
    return `M${x} ${rounded(top + TICKS)}v-${height}`;
  });
  return element('path', { d: lines.join(''), class: 'calls' });
}

function curveDrawing(lane: Lane, scale: Scale, top: number): string {
  const total = lane.out + lane.in;
  const points = curvePoints(lane, scale).map(
    ([x, moved]) => `${rounded(x)} ${rounded(top + CURVE * (1 - moved / total))}`,
  );
  const way = lane.out > 0 ? (lane.in > 0 ? 'out and in' : 'out') : 'in';
  const bottom = top + CURVE;
  const area = `M${scale.left} ${bottom}L${points.join('L')}L${scale.left + scale.width} ${bottom}Z`;
  return [
    element('path', { d: area, class: 'bytes' }, hint(`${size(total)} of migration data ${way}`)),
    label(scale.left - 8, top + 22, `${size(total)} ${way}`, { class: 'side' }),
  ].join('');
}

/** How much has moved by each column: a step where data did. */
function curvePoints({ marks }: Lane, scale: Scale): (readonly [x: number, bytes: number])[] {
  const moving = marks.filter(({ moved, begin }) => moved >= 0 && begin <= scale.end);
  const points: [x: number, bytes: number][] = [[scale.left, 0]];
  let bytes = 0;
  for (const mark of moving) {
    const x = Math.round(xOf(scale, Math.max(mark.begin, scale.begin)));
    const last = points.at(-1);
    if (last === undefined || x > last[0]) points.push([x, bytes], [x, bytes]);
    bytes += mark.out + mark.in;
    points[points.length - 1] = [Math.max(x, scale.left), bytes];
  }
  return [...points, [scale.left + scale.width, bytes]];
}
