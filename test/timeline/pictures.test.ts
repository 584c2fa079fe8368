import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RecordingEntry } from '../../src/recording/reader.ts';
import { escaped, jsonInHtml } from '../../src/timeline/escape.ts';
import { htmlOf } from '../../src/timeline/html.ts';
import { PHASES } from '../../src/timeline/phases.ts';
import { svgOf } from '../../src/timeline/svg.ts';
import { textOf } from '../../src/timeline/text.ts';
import { readTimeline, type Timeline } from '../../src/timeline/timeline.ts';
import { recordings } from '../recording/lines.ts';
import { numRuns } from '../support/runs.ts';
import { elementsOf, textsOf } from './markup.ts';
import { DEVICE, destination, source, Tape } from './tape.ts';

const timelineOf = (...tapes: readonly (readonly RecordingEntry[])[]): Timeline => readTimeline(tapes);
const both = timelineOf(source().entries, destination().entries);

const HOSTILE =
  '</script></title>"\'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u0000\u001B[31m\u202E\uD800]]>';
/** Names that want to be more than names, at each place where a recording has one. */
const hostile = timelineOf(
  new Tape({ host: HOSTILE, devices: [{ name: HOSTILE, device: HOSTILE, protocol: 'v1' }] })
    .opened(0, HOSTILE)
    .state(1000, 'STOP_COPY', HOSTILE)
    .bytes(1100, 'out', 5, HOSTILE)
    .access({
      device: HOSTILE,
      call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_FEATURE', feature: `SET ${HOSTILE}` },
      errno: 'EIO',
    })
    .add({ kind: 'takeover', time: new Tape().at(1200), why: HOSTILE }).entries,
  destination({ host: `${HOSTILE}2`, realtime: 1 }).entries,
);

const anyTimeline = fc.array(recordings, { minLength: 1, maxLength: 3 }).map((lines) => readTimeline(lines));

describe('an SVG', () => {
  it('has a box of the colour of each state, where the state is', () => {
    const boxes = elementsOf(svgOf(both)).filter(
      ({ name, attributes }) => name === 'rect' && attributes['height'] === '16',
    );
    const [first] = both.recordings[0]?.lanes[0]?.rows ?? [];
    const { begin, end } = both.migration;
    const x = (time: number): number =>
      190 + ((Math.min(Math.max(time, begin), end) - begin) / (end - begin)) * (1200 - 190 - 16);
    expect(first?.spans.map(({ phase }) => phase)).toEqual(['running', 'pre-copy', 'stop-copy', 'stop']);
    for (const [n, span] of (first?.spans ?? []).entries()) {
      expect(boxes[n]?.attributes['fill']).toBe(PHASES[span.phase].colour);
      expect(Number(boxes[n]?.attributes['x'])).toBeCloseTo(x(span.begin), 1);
      expect(Number(boxes[n]?.attributes['width'])).toBeCloseTo(x(span.end) - x(span.begin), 1);
    }
  });

  it('says how long the downtime was, and draws it once more if it is small', () => {
    expect(textsOf(svgOf(both, both.whole)).filter((text) => text === 'downtime 1 ms')).toHaveLength(2);
    expect(textsOf(svgOf(both, both.whole)).filter((text) => text === 'the downtime, enlarged')).toHaveLength(1);
    expect(textsOf(svgOf(both, { begin: 1900, end: 3100 }))).not.toContain('the downtime, enlarged');
  });

  it('shows errors, takeovers and the end of a recording that was cut', () => {
    const tape = source()
      .access({
        begin: source().at(2100),
        device: DEVICE,
        errno: 'EIO',
        call: { protocol: 'v2', call: 'data', direction: 'out', errno: 'EIO' },
      })
      .add({ kind: 'takeover', time: source().at(2200), why: 'SIGKILL' })
      .add({ kind: 'cut', line: 12, bytes: 3 });
    const elements = elementsOf(svgOf(timelineOf(tape.entries), { begin: 0, end: 6000 }));
    const classes = elements.map(({ attributes }) => attributes['class']);
    expect(classes).toEqual(expect.arrayContaining(['error', 'takeover', 'end']));
    const texts = textsOf(svgOf(timelineOf(tape.entries), { begin: 0, end: 6000 }));
    expect(texts).toEqual(
      expect.arrayContaining(['read data = EIO', 'the supervisor died (SIGKILL)', 'the recording is cut in line 12']),
    );
  });

  it('draws no more than a screen has columns, however many calls there are', () => {
    const tape = source();
    for (let n = 0; n < 20_000; n += 1) tape.bytes(3000 + n, 'out', 1);
    expect(svgOf(timelineOf(tape.entries)).length).toBeLessThan(60_000);
  });

  it('is XML, whatever a recording says', () => {
    expect(elementsOf(svgOf(hostile)).map(({ name }) => name)).not.toContain('script');
    fc.assert(
      fc.property(anyTimeline, (timeline) => {
        expect(elementsOf(svgOf(timeline))[0]?.name).toBe('svg');
        expect(svgOf(timeline)).not.toMatch(/NaN|Infinity|undefined/);
      }),
      { numRuns: numRuns(50) },
    );
  });
});

describe('a page', () => {
  it('has one script and one block of data, whatever a recording says', () => {
    const page = htmlOf(hostile);
    expect(page.match(/<script/g)).toHaveLength(2);
    expect(page.match(/<\/script/g)).toHaveLength(2);
    expect(page.match(/<img/g)).toBeNull();
    expect(page.match(/<\/noscript/g)).toHaveLength(1);
  });

  it('names nothing that it would load', () => {
    const page = htmlOf(both).replaceAll('http://www.w3.org/2000/svg', '');
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-`);
    expect(page).not.toMatch(/\bsrc=|https?:|url\(|@import/);
  });

  it('has the data as they are', () => {
    const data = /id="data">(.*?)<\/script>/s.exec(htmlOf(hostile))?.[1] ?? '';
    const { recordings } = JSON.parse(data) as { recordings: { name: string }[] };
    expect(recordings.map(({ name }) => name)).toEqual([
      `source: ${HOSTILE}, vfio-shim run`,
      `destination: ${HOSTILE}2, vfio-shim run`,
    ]);
  });
});

describe('a drawing for a terminal', () => {
  const plain = textOf(both, { columns: 80, colour: false });

  it('has a letter for each state, and is as wide as the terminal', () => {
    const row = plain.split('\n').find((line) => line.startsWith('        VMM, v1')) ?? '';
    expect(row).toMatch(/ R+P+C+S+$/);
    expect(row).toHaveLength(79);
    expect(plain).toContain('P PRE_COPY (runs, and saves)');
    expect(plain).toMatch(/├─* 1 ms ─*┤/);
  });

  it.each([20, 40, 80, 200])('fits into %i columns', (columns) => {
    const drawn = textOf(both, { columns, colour: false }).split('\n');
    const bars = drawn.filter((line) => /^ +(VMM, v1|calls|\d.* (out|in)) /.test(line));
    expect(bars.length).toBeGreaterThan(4);
    expect(Math.max(...bars.map((line) => line.length))).toBeLessThanOrEqual(Math.max(columns, 36));
  });

  it('has colours if it is asked to, and the same letters', () => {
    const coloured = textOf(both, { columns: 80, colour: true });
    expect(coloured).toContain(`\u001B[30;48;5;${PHASES['stop-copy'].terminal}mC\u001B[0m`);
    // oxlint-disable-next-line no-control-regex -- colours
    expect(coloured.replaceAll(/\u001B\[[\d;]*m/g, '').replaceAll('C\nS', 'C')).toContain('PPPP');
  });

  it('tells a terminal nothing, whatever a recording says', () => {
    // oxlint-disable-next-line no-control-regex -- what is looked for
    const control = /[\u0000-\u0009\u000B-\u001F\u007F-\u009F\u202E]/;
    expect(textOf(hostile, { columns: 100, colour: false })).not.toMatch(control);
    fc.assert(
      fc.property(anyTimeline, fc.integer({ min: 1, max: 300 }), (timeline, columns) => {
        expect(textOf(timeline, { columns, colour: false })).not.toMatch(control);
      }),
      { numRuns: numRuns(50) },
    );
  });

  it('says what its signs mean', () => {
    const tape = source().add({ kind: 'takeover', time: source().at(2200), why: 'SIGKILL' });
    expect(textOf(timelineOf(tape.entries), { columns: 80, colour: false })).toMatch(
      /T at .*: the supervisor died \(SIGKILL\)/,
    );
  });
});

describe('escaping', () => {
  it('leaves nothing that is markup, a control character or half a character', () => {
    expect(escaped(`<a b="c" d='e'>&`)).toBe('&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;');
    expect(escaped('\u0000\n\u007F\u009B\uD800\u202E\uFFFE😀')).toBe('\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD😀');
    expect(jsonInHtml({ a: '</script><!--' })).toBe('{"a":"\\u003c/script>\\u003c!--"}');
  });
});
