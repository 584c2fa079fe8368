import { createHash } from 'node:crypto';
import { escaped, jsonInHtml } from './escape.ts';
import { laneName, recordingName, statesIn, titleOf, whose } from './names.ts';
import { PAGE_SCRIPT } from './page-script.ts';
import { PHASES } from './phases.ts';
import type { Lane } from './survey.ts';
import { svgOf } from './svg.ts';
import type { PlacedRecording, Timeline } from './timeline.ts';

const STYLE = `
body{font:13px ui-sans-serif,system-ui,sans-serif;color:#24292f;background:#fff;margin:12px}
h1{font-size:16px;margin:0 0 8px}
canvas{width:100%;display:block;cursor:grab;touch-action:none;outline-offset:2px}
#hint{position:absolute;pointer-events:none;background:#24292f;color:#fff;padding:4px 7px;border-radius:4px;max-width:60ch;white-space:pre-wrap}
#hint[hidden]{display:none}
.legend span{display:inline-block;margin-right:14px}
.legend i{display:inline-block;width:12px;height:12px;margin-right:5px;border:1px solid #57606a;vertical-align:-2px}
p,button,output{margin:6px 6px 6px 0;color:#57606a}
`;

/** The picture as a page of its own, to zoom into. It loads nothing, and runs its own script only. */
export function htmlOf(timeline: Timeline): string {
  const title = escaped(titleOf(timeline));
  const legend = Array.from(statesIn(timeline), ([phase, state]) => {
    const { colour, words } = PHASES[phase];
    return `<span><i style="background:${colour}"></i>${escaped(`${state}: ${words}`)}</span>`;
  });
  const notes = timeline.notes.map((note) => `<p>${escaped(note)}</p>\n`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '${hashOf(PAGE_SCRIPT)}'">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${title}</h1>
<div><button data-range="migration">Migration</button><button data-range="downtime">Downtime</button><button data-range="whole">Everything</button><output></output></div>
<canvas tabindex="0" role="img" aria-label="${title}"></canvas>
<div id="hint" hidden></div>
<p class="legend">${legend.join('')}</p>
<p>Wheel or + and - zoom, dragging or the arrows move, a double click shows the migration again. Lines below the states are trapped calls of the VMM.</p>
${notes.join('')}<noscript>
${svgOf(timeline)}</noscript>
<script type="application/json" id="data">${jsonInHtml(dataOf(timeline))}</script>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`;
}

function hashOf(script: string): string {
  return `sha256-${createHash('sha256').update(script).digest('base64')}`;
}

/** What the script draws. */
function dataOf(timeline: Timeline): unknown {
  const { recordings, downtimes, whole, migration } = timeline;
  const phases = Object.entries(PHASES).map(([phase, { colour, words }]) => [phase, { colour, words }]);
  return {
    phases: Object.fromEntries(phases),
    whole,
    migration,
    downtimes: downtimes.map(({ begin, end }) => ({ begin, end })),
    recordings: recordings.map(recordingData),
  };
}

function recordingData(recording: PlacedRecording): unknown {
  const lanes = recording.lanes.map((lane) => ({
    ...laneData(lane),
    errors: recording.flags.filter(({ kind, device }) => kind === 'error' && device === lane.device),
  }));
  return { name: recordingName(recording), lanes, events: recording.flags.filter(({ kind }) => kind !== 'error') };
}

function laneData(lane: Lane): object {
  return {
    name: laneName(lane),
    rows: lane.rows.map((row) => ({ name: whose(row), spans: row.spans })),
    marks: lane.marks.map(({ begin, end, calls, busy, out, in: into, text }) => [
      begin,
      end,
      calls,
      busy,
      out + into,
      text,
    ]),
    bytes: lane.out + lane.in,
    way: lane.out > 0 ? 'out' : 'in',
  };
}
