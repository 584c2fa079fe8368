import { duration } from '../recording/text.ts';
import type { PlacedRecording } from './timeline.ts';
import type { Survey } from './survey.ts';

/** What has to be known to believe a picture. */
export function notesOf(surveys: readonly Survey[], recordings: readonly PlacedRecording[]): string[] {
  return [...clockNotes(recordings), ...surveys.flatMap((survey) => omissions(survey))];
}

function clockNotes(recordings: readonly PlacedRecording[]): string[] {
  if (recordings.length < 2) return [];
  const moved = recordings.filter(({ clock }) => clock.moved > 0);
  if (recordings.slice(1).every(({ clock }) => clock.by === 'same'))
    return ['The recordings are of one host, and share its clock.'];
  if (moved.length === 0) {
    return [
      "The recordings are put side by side by their hosts' time of day; by that, no byte came in before it went out.",
    ];
  }
  return moved.map(({ header, clock }) => {
    const by = duration(Math.round(clock.moved));
    return `By the hosts' time of day, bytes came in at ${header.host} before they went out: its clock is behind by at least ${by}, by which its recording is moved.`;
  });
}

function omissions({ header, lanes, flagsOmitted, lanesOmitted }: Survey): string[] {
  const states = lanes.flatMap(({ rows }) => rows).reduce((sum, { omitted }) => sum + omitted, 0);
  const left: readonly (readonly [count: number, what: string])[] = [
    [states, 'changes of state'],
    [flagsOmitted, 'errors and takeovers'],
  ];
  return [
    ...(lanesOmitted ? [`${header.host}: only the first ${lanes.length} devices are shown.`] : []),
    ...left.filter(([count]) => count > 0).map(([count, what]) => `${header.host}: ${count} ${what} are not shown.`),
  ];
}
