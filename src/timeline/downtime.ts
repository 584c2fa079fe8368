import { PHASES } from './phases.ts';
import type { Span } from './states.ts';
import type { Lane } from './survey.ts';
import type { PlacedRecording } from './timeline.ts';

/** From the source's leaving RUNNING, as its VMM asked for it, until all devices run at the destination. */
export interface Downtime {
  readonly begin: number;
  readonly end: number;
  /** Which recordings. */
  readonly source: number;
  readonly destination: number;
}

/** The downtime of each migration of which both ends are there. */
export function downtimesOf(recordings: readonly PlacedRecording[]): Downtime[] {
  return recordings.flatMap((destination, to) => {
    const end = runsAgain(destination);
    if (end === undefined) return [];
    const stops = recordings.flatMap((source, from) => {
      const begin = from === to ? undefined : stopsBefore(source, end);
      return begin === undefined ? [] : [{ begin, end, source: from, destination: to }];
    });
    const last = Math.max(...stops.map(({ begin }) => begin));
    return stops.filter(({ begin }) => begin === last).slice(0, 1);
  });
}

/** When the last of the devices runs that were loaded here. */
function runsAgain({ lanes }: PlacedRecording): number | undefined {
  const loaded = lanes.filter((lane) => lane.in > 0);
  const times = loaded.map((lane) => {
    const spans = vmmSpans(lane);
    const loading = spans.findIndex(({ phase }) => phase === 'resuming');
    return loading < 0 ? undefined : spans.slice(loading).find(({ phase }) => phase === 'running')?.begin;
  });
  return times.length > 0 && times.every((time) => time !== undefined) ? Math.max(...times) : undefined;
}

/** When the first of the devices that were saved here was stopped for the last time, before it ran somewhere else. */
function stopsBefore({ lanes }: PlacedRecording, end: number): number | undefined {
  const saved = lanes.filter((lane) => lane.out > 0);
  const times = saved.flatMap((lane) => {
    const spans = vmmSpans(lane);
    const stops = spans.filter(
      ({ phase, asked }, n) => asked < end && !PHASES[phase].runs && PHASES[spans[n - 1]?.phase ?? 'unknown'].runs,
    );
    const stop = stops.at(-1);
    return stop === undefined ? [] : [stop.asked];
  });
  return times.length > 0 ? Math.min(...times) : undefined;
}

function vmmSpans({ rows }: Lane): readonly Span[] {
  return rows.find(({ side }) => side === 'vmm')?.spans ?? [];
}
