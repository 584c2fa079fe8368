/** The script of the page: it draws what is in `#data` on the canvas, and says what the pointer is on. Text is text: it makes no markup. */
export const PAGE_SCRIPT = String.raw`'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const canvas = document.querySelector('canvas');
const hint = document.getElementById('hint');
const output = document.querySelector('output');
const g = canvas.getContext('2d');
const LEFT = 190, RIGHT = 16, AXIS = 34, HEAD = 18, ROW = 18, TICKS = 10, CURVE = 40, GAP = 4;
const FONT = '11px ui-sans-serif, system-ui, sans-serif';
let view = { ...data.migration };
let width = 0;
/** What is where, for hints: the last that was drawn is on top. */
let places = [];

const span = () => Math.max(1, view.end - view.begin);
const xOf = (time) => LEFT + ((time - view.begin) / span()) * (width - LEFT - RIGHT);
const timeAt = (x) => view.begin + ((x - LEFT) / (width - LEFT - RIGHT)) * span();
const rounded = (n) => String(Math.round(n * 10) / 10);

function duration(us) {
  if (us < 1000) return rounded(us) + ' us';
  return us < 1e6 ? rounded(us / 1e3) + ' ms' : rounded(us / 1e6) + ' s';
}

function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let power = 0;
  while (power + 1 < units.length && bytes >= 1024 ** (power + 1)) power += 1;
  return rounded(bytes / 1024 ** power) + ' ' + units[power];
}

function text(words, x, y, colour, align, weight) {
  g.font = (weight || '') + ' ' + FONT;
  g.fillStyle = colour || '#24292f';
  g.textAlign = align || 'left';
  g.fillText(words, x, y);
}

function laneHeight(lane) {
  return HEAD + lane.rows.length * (ROW + GAP) + TICKS + GAP + (lane.bytes > 0 ? CURVE + GAP : 0) + 6;
}

function height() {
  const lanes = data.recordings.flatMap((recording) => recording.lanes);
  return AXIS + data.recordings.length * HEAD + lanes.reduce((sum, lane) => sum + laneHeight(lane), 0) + 4;
}

function draw() {
  const scale = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  canvas.style.height = height() + 'px';
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height() * scale);
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height());
  places = [];
  drawAxis();
  let y = AXIS;
  for (const recording of data.recordings) y = drawRecording(recording, y);
  drawDowntimes();
  output.textContent = duration(span()) + ', from ' + duration(view.begin - data.migration.begin);
  canvas.dataset.begin = view.begin;
  canvas.dataset.end = view.end;
}

function drawAxis() {
  const least = span() / 10;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 0.1)));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) || power * 10;
  const zero = data.migration.begin;
  for (let n = Math.ceil((view.begin - zero) / step), k = 0; n * step + zero <= view.end && k < 20; n += 1, k += 1) {
    const x = xOf(n * step + zero);
    g.fillStyle = '#d8dee4';
    g.fillRect(Math.round(x), AXIS - 6, 1, height());
    text(duration(n * step), x, AXIS - 12, '#57606a', 'center');
  }
}

function drawDowntimes() {
  for (const { begin, end } of data.downtimes) {
    if (end < view.begin || begin > view.end) continue;
    const from = Math.max(LEFT, xOf(begin));
    const to = Math.min(width - RIGHT, xOf(end));
    g.fillStyle = 'rgba(192, 57, 43, .09)';
    g.fillRect(from, AXIS - 4, Math.max(1, to - from), height());
    text('downtime ' + duration(end - begin), Math.min(Math.max((from + to) / 2, LEFT + 60), width - 70), 10, '#a12a1e', 'center', 'bold');
  }
}

function drawRecording(recording, top) {
  text(recording.name, 4, top + 13, '', '', 'bold');
  let y = top + HEAD;
  for (const lane of recording.lanes) y = drawLane(lane, y);
  for (const event of recording.events) {
    if (event.time < view.begin || event.time > view.end) continue;
    const x = xOf(event.time);
    g.fillStyle = event.kind === 'takeover' ? '#8e44ad' : '#57606a';
    g.fillRect(Math.round(x), top + HEAD, 2, y - top - HEAD);
    text(event.text, x + 4, top + 13);
    place(x - 4, top, 10, y - top, event.text);
  }
  return y;
}

function drawLane(lane, top) {
  text(lane.name, 4, top + 13);
  let y = top + HEAD;
  for (const row of lane.rows) {
    drawRow(row, y);
    y += ROW + GAP;
  }
  drawMarks(lane, y);
  for (const error of lane.errors) drawError(error, y);
  y += TICKS + GAP;
  if (lane.bytes > 0) drawCurve(lane, y);
  return top + laneHeight(lane);
}

function drawRow(row, y) {
  text(row.name, LEFT - 8, y + 13, '#57606a', 'right');
  for (const { phase, state, begin, end } of row.spans) {
    if (end < view.begin || begin > view.end) continue;
    const x = Math.max(LEFT, xOf(begin));
    const wide = Math.max(0.75, Math.min(width - RIGHT, xOf(end)) - x);
    g.fillStyle = data.phases[phase].colour;
    g.fillRect(x, y, wide, ROW);
    if (wide > state.length * 6.4 + 6) text(state, x + 4, y + 13);
    place(x, y, Math.max(3, wide), ROW, state + ': the device ' + data.phases[phase].words + ', for ' + duration(end - begin));
  }
}

function drawMarks(lane, y) {
  g.fillStyle = '#24292f';
  const shown = lane.marks.filter(([begin, end]) => end >= view.begin && begin <= view.end);
  for (const [begin, end] of shown) {
    const x = Math.max(LEFT, xOf(begin));
    g.fillRect(x, y, Math.max(0.8, Math.min(width - RIGHT, xOf(end)) - x), TICKS);
  }
  places.push({ x: LEFT, y, w: width - LEFT - RIGHT, h: TICKS, of: (x) => nearest(shown, x) });
}

function nearest(marks, x) {
  let best;
  let distance = 4;
  for (const mark of marks) {
    const away = Math.max(0, xOf(mark[0]) - x, x - xOf(mark[1]));
    if (away < distance) [best, distance] = [mark, away];
  }
  if (best === undefined) return '';
  const [begin, , calls, busy, bytes, words] = best;
  const what = calls === 1 ? words : calls + ' calls';
  return what + ' <' + duration(busy) + '>' + (bytes > 0 ? ', ' + size(bytes) : '') + ' at ' + duration(begin - data.migration.begin);
}

function drawError(error, y) {
  if (error.time < view.begin || error.time > view.end) return;
  const x = xOf(error.time);
  g.fillStyle = '#c0392b';
  g.beginPath();
  g.moveTo(x, y - 2);
  g.lineTo(x + 6, y + TICKS);
  g.lineTo(x - 6, y + TICKS);
  g.fill();
  place(x - 6, y - 2, 12, TICKS + 2, error.text);
}

function drawCurve(lane, y) {
  const bottom = y + CURVE;
  let bytes = 0;
  g.beginPath();
  g.moveTo(LEFT, bottom);
  for (const [begin, end, , , moved] of lane.marks) {
    if (begin > view.end) break;
    if (moved === 0) continue;
    g.lineTo(Math.max(LEFT, xOf(begin)), bottom - (CURVE * bytes) / lane.bytes);
    bytes += moved;
    g.lineTo(Math.min(width - RIGHT, Math.max(LEFT, xOf(end))), bottom - (CURVE * bytes) / lane.bytes);
  }
  g.lineTo(width - RIGHT, bottom - (CURVE * bytes) / lane.bytes);
  g.lineTo(width - RIGHT, bottom);
  g.fillStyle = 'rgba(140, 107, 177, .45)';
  g.fill();
  text(size(lane.bytes) + ' ' + lane.way, LEFT - 8, y + 24, '#57606a', 'right');
  places.push({ x: LEFT, y, w: width - LEFT - RIGHT, h: CURVE, of: (x) => movedBy(lane, timeAt(x)) });
}

function movedBy(lane, time) {
  const bytes = lane.marks.reduce((sum, mark) => (mark[0] <= time ? sum + mark[4] : sum), 0);
  return size(bytes) + ' of ' + size(lane.bytes) + ' ' + lane.way;
}

function place(x, y, w, h, words) {
  places.push({ x, y, w, h, of: () => words });
}

function show(next) {
  const least = 10;
  const most = data.whole.end - data.whole.begin;
  const long = Math.min(Math.max(next.end - next.begin, least), Math.max(most, least));
  const begin = Math.min(Math.max(next.begin, data.whole.begin), Math.max(data.whole.begin, data.whole.end - long));
  view = { begin, end: begin + long };
  draw();
}

function zoom(factor, at) {
  show({ begin: at - (at - view.begin) * factor, end: at + (view.end - at) * factor });
}

function move(by) {
  show({ begin: view.begin + by, end: view.end + by });
}

function point(event) {
  const { left, top } = canvas.getBoundingClientRect();
  const x = event.clientX - left;
  const y = event.clientY - top;
  const found = places.findLast((each) => x >= each.x && x <= each.x + each.w && y >= each.y && y <= each.y + each.h && each.of(x) !== '');
  hint.hidden = found === undefined;
  if (found === undefined) return;
  hint.textContent = found.of(x);
  hint.style.left = Math.min(event.pageX + 12, window.scrollX + window.innerWidth - hint.offsetWidth - 8) + 'px';
  hint.style.top = event.pageY + 14 + 'px';
}

let held;
canvas.addEventListener('wheel', (event) => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 0.8 : 1.25, timeAt(event.clientX - canvas.getBoundingClientRect().left));
}, { passive: false });
canvas.addEventListener('pointerdown', (event) => {
  held = event.clientX;
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener('pointerup', () => (held = undefined));
canvas.addEventListener('pointermove', (event) => {
  if (held === undefined) return point(event);
  move(((held - event.clientX) / (width - LEFT - RIGHT)) * span());
  held = event.clientX;
});
canvas.addEventListener('pointerleave', () => (hint.hidden = true));
canvas.addEventListener('dblclick', () => show(data.migration));
canvas.addEventListener('keydown', (event) => {
  const middle = (view.begin + view.end) / 2;
  if (event.key === '+') zoom(0.8, middle);
  else if (event.key === '-') zoom(1.25, middle);
  else if (event.key === 'ArrowLeft') move(-span() / 10);
  else if (event.key === 'ArrowRight') move(span() / 10);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll('button')) {
  const range = button.dataset.range === 'downtime' ? data.downtimes[0] : data[button.dataset.range];
  button.disabled = range === undefined;
  button.addEventListener('click', () => show(range));
}
window.addEventListener('resize', draw);
draw();
`;
