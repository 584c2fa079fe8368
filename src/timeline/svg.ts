import { duration } from '../recording/text.ts';
import { axisTicks } from './axis.ts';
import type { Flag } from './flags.ts';
import { PHASES } from './phases.ts';
import { element, hint, label } from './svg-element.ts';
import { laneDrawing, laneHeight, xOf, type Scale } from './svg-lane.ts';
import { laneName, recordingName, statesIn, titleOf } from './names.ts';
import type { PlacedRecording, Range, Timeline } from './timeline.ts';

const WIDTH = 1200;
const LEFT = 190;
const RIGHT = 16;
const AXIS = 34;
const HEADING = 20;
const LANE_GAP = 10;
/** A downtime that has less of the picture is drawn once more, larger. */
const SMALL = 0.25;
/** No more of them. */
const MAX_ENLARGED = 3;

const STYLE = `
text{font:11px ui-sans-serif,system-ui,sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:600}
.heading{font-weight:600}
.side{text-anchor:end;fill:#57606a}
.state{font-size:10.5px}
.axis{fill:#57606a;font-size:10px;text-anchor:middle}
.grid{stroke:#d8dee4;fill:none}
.calls{stroke:#24292f;stroke-width:.8;fill:none}
.bytes{fill:#8c6bb1;fill-opacity:.35;stroke:#6a4c93}
.downtime{fill:#c0392b;fill-opacity:.09}
.stopped{fill:#a12a1e;font-weight:600;text-anchor:middle}
.edge{stroke:#c0392b;stroke-dasharray:3 2;fill:none}
.error{fill:#c0392b}
.takeover{stroke:#8e44ad;stroke-width:1.5;stroke-dasharray:5 3;fill:none}
.end{stroke:#57606a;stroke-width:1.5;stroke-dasharray:1 3;fill:none}
.note{fill:#57606a}
`;

/** The picture as SVG: `range` of it, and each downtime once more if it is small in that. */
export function svgOf(timeline: Timeline, range: Range = timeline.migration): string {
  const enlarged = timeline.downtimes
    .filter(({ begin, end }) => (end - begin) / (range.end - range.begin) < SMALL)
    .slice(0, MAX_ENLARGED)
    .map(({ begin, end }) => ({ begin: begin - (end - begin) / 20, end: end + (end - begin) / 20 }));
  const parts: string[] = [label(10, 20, titleOf(timeline), { class: 'title' })];
  let top = 30;
  for (const [n, shown] of [range, ...enlarged].entries()) {
    const panel = panelDrawing(timeline, shown, top, n > 0);
    parts.push(panel.drawing);
    top = panel.bottom + 14;
  }
  const foot = footDrawing(timeline, top);
  const size = { width: WIDTH, height: Math.ceil(foot.bottom), viewBox: `0 0 ${WIDTH} ${Math.ceil(foot.bottom)}` };
  return `${element(
    'svg',
    { xmlns: 'http://www.w3.org/2000/svg', ...size, role: 'img' },
    hint(titleOf(timeline)),
    element('style', {}, STYLE),
    element('rect', { width: '100%', height: '100%', fill: '#ffffff' }),
    ...parts.map((part) => `\n${part}`),
    `\n${foot.drawing}\n`,
  )}\n`;
}

interface Drawn {
  readonly drawing: string;
  readonly bottom: number;
}

function panelDrawing(timeline: Timeline, range: Range, top: number, isEnlarged: boolean): Drawn {
  const scale: Scale = { ...range, left: LEFT, width: WIDTH - LEFT - RIGHT };
  const lanes: string[] = [];
  let y = top + AXIS;
  for (const recording of timeline.recordings) {
    const { drawing, bottom } = recordingDrawing(recording, scale, y);
    lanes.push(drawing);
    y = bottom;
  }
  const head = isEnlarged ? [label(10, top + 14, 'the downtime, enlarged', { class: 'heading' })] : [];
  const drawing = [
    ...head,
    axisDrawing(timeline, scale, top, y),
    ...downtimeDrawings(timeline, scale, top, y),
    ...lanes,
  ];
  return { drawing: drawing.join('\n'), bottom: y };
}

function axisDrawing(timeline: Timeline, scale: Scale, top: number, bottom: number): string {
  const ticks = axisTicks(scale, timeline.migration.begin, 10);
  const lines = ticks.map(
    ({ time }) => `M${Math.round(xOf(scale, time)) + 0.5} ${top + AXIS - 6}V${Math.round(bottom)}`,
  );
  const labels = ticks.map(({ time, label: text }) =>
    label(xOf(scale, time), top + AXIS - 10, text, { class: 'axis' }),
  );
  return [element('path', { d: lines.join('') || 'M0 0', class: 'grid' }), ...labels].join('');
}

function downtimeDrawings({ downtimes }: Timeline, scale: Scale, top: number, bottom: number): string[] {
  const shown = downtimes.filter(({ begin, end }) => end >= scale.begin && begin <= scale.end);
  return shown.map(({ begin, end }) => {
    const from = xOf(scale, Math.max(begin, scale.begin));
    const to = xOf(scale, Math.min(end, scale.end));
    const middle = Math.min(Math.max((from + to) / 2, LEFT + 60), WIDTH - 70);
    const y = top + AXIS - 4;
    return [
      element('rect', { x: from, y, width: Math.max(1, to - from), height: bottom - y, class: 'downtime' }),
      element('path', {
        d: `M${Math.round(from)} ${y}V${Math.round(bottom)}M${Math.round(to)} ${y}V${Math.round(bottom)}`,
        class: 'edge',
      }),
      label(middle, top + 10, `downtime ${duration(Math.round(end - begin))}`, { class: 'stopped' }),
    ].join('');
  });
}

function recordingDrawing(recording: PlacedRecording, scale: Scale, top: number): Drawn {
  const parts = [label(10, top + 14, recordingName(recording), { class: 'heading' })];
  let y = top + HEADING;
  for (const lane of recording.lanes) {
    parts.push(label(10, y + 12, laneName(lane)), laneDrawing(lane, scale, y + HEADING - 4));
    const flags = recording.flags.filter(({ kind, device }) => kind === 'error' && device === lane.device);
    y += HEADING - 4 + laneHeight(lane) + LANE_GAP;
    parts.push(...within(flags, scale).map((flag) => errorDrawing(flag, scale, y - LANE_GAP)));
  }
  const others = recording.flags.filter(({ kind }) => kind !== 'error');
  parts.push(...within(others, scale).map((flag) => eventDrawing(flag, scale, top + HEADING, y)));
  return { drawing: parts.join('\n'), bottom: y };
}

function within(flags: readonly Flag[], { begin, end }: Range): Flag[] {
  return flags.filter(({ time }) => time >= begin && time <= end);
}

function errorDrawing({ time, text }: Flag, scale: Scale, bottom: number): string {
  const x = xOf(scale, time);
  return element('path', { d: `M${Math.round(x)} ${bottom - 10}l5 10h-10z`, class: 'error' }, hint(text));
}

function eventDrawing({ time, kind, text }: Flag, scale: Scale, top: number, bottom: number): string {
  const x = Math.round(xOf(scale, time));
  const line = element('path', { d: `M${x} ${top}V${bottom}`, class: kind }, hint(text));
  return line + label(Math.min(x + 4, WIDTH - 220), top + 8, text);
}

function footDrawing(timeline: Timeline, top: number): Drawn {
  const parts: string[] = [];
  let x = 10;
  for (const [phase, state] of statesIn(timeline)) {
    const { colour, words } = PHASES[phase];
    const text = `${state}: ${words}`;
    if (x + 20 + text.length * 6 > WIDTH) {
      x = 10;
      top += 18;
    }
    parts.push(
      element('rect', { x, y: top, width: 12, height: 12, fill: colour, stroke: '#57606a', 'stroke-width': 0.5 }),
    );
    parts.push(label(x + 17, top + 10, text));
    x += 34 + text.length * 6;
  }
  const notes = ['Lines below the states are trapped calls of the VMM; red triangles are errors.', ...timeline.notes];
  parts.push(...notes.map((note, n) => label(10, top + 32 + n * 15, note, { class: 'note' })));
  return { drawing: parts.join(''), bottom: top + 32 + notes.length * 15 };
}
