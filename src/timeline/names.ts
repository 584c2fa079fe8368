import { duration, size } from '../recording/text.ts';
import type { Phase } from './phases.ts';
import type { Row } from './states.ts';
import type { Lane } from './survey.ts';
import type { PlacedRecording, Timeline } from './timeline.ts';

/** What a recording is, in a line. */
export function recordingName({ role, header }: PlacedRecording): string {
  return `${role}: ${header.host}, vfio-shim ${header.command}`;
}

/** What a lane is, in a line. */
export function laneName({ device, what }: Lane): string {
  if (device === undefined) return 'groups and containers';
  return what === '' ? device : `${device}: ${what}`;
}

/** Whose states a row has. */
export function whose({ side, protocol }: Row): string {
  const who = side === 'vmm' ? 'VMM' : 'driver';
  return protocol === undefined ? who : `${who}, ${protocol}`;
}

/** The phases that are drawn, each with the name of a state that has it. */
export function statesIn({ recordings }: Timeline): Map<Phase, string> {
  const spans = recordings.flatMap(({ lanes }) => lanes.flatMap(({ rows }) => rows.flatMap((row) => row.spans)));
  return new Map(spans.map(({ phase, state }) => [phase, state]));
}

/** What is drawn, in a line. */
export function titleOf({ recordings, downtimes, realtime }: Timeline): string {
  const out = recordings.flatMap(({ lanes }) => lanes).reduce((sum, lane) => sum + lane.out, 0);
  const times = downtimes.map(({ begin, end }) => duration(Math.round(end - begin)));
  const when = realtime / 1000 <= LAST_DATE ? new Date(realtime / 1000).toISOString() : `${realtime} us`;
  return [
    `vfio-shim, from ${when}`,
    ...(out > 0 ? [`${size(out)} of migration data`] : []),
    ...(times.length > 0 ? [`downtime ${times.join(', ')}`] : []),
  ].join('; ');
}

/** A JavaScript date goes no further, in milliseconds. */
const LAST_DATE = 8.64e15;
