// What a migration cost each device, by the recordings of `vfio-shim run --record` at both ends.
// In a clone: npx tsx examples/recording.ts SOURCE DESTINATION
import { readFileSync } from 'node:fs';
import { readRecording } from 'vfio-shim/recording';
import { PHASES, readTimeline, type PlacedRecording } from 'vfio-shim/timeline';

/** The states of a device in a recording, as its VMM was told them. */
function statesOf({ lanes }: PlacedRecording, device: string) {
  return lanes.find((lane) => lane.device === device)?.rows.find(({ side }) => side === 'vmm')?.spans ?? [];
}

const files = process.argv.slice(2);
const { recordings, downtimes } = readTimeline(files.map((file) => readRecording([readFileSync(file)])));

for (const { header, role, lanes } of recordings) {
  for (const { device = 'groups and containers', out, in: into } of lanes) {
    console.log(`${role} ${header.host}, ${device}: ${out} bytes out, ${into} bytes in`);
  }
}

for (const { begin, end, source, destination } of downtimes) {
  console.log(`downtime ${Math.round(end - begin)} us`);
  const [from, to] = [recordings[source], recordings[destination]];
  if (from === undefined || to === undefined) throw new RangeError('a downtime of recordings that are not there');
  for (const { device, out } of from.lanes) {
    if (device === undefined || out === 0) continue;
    // it is down from when its VMM asked it to stop for the last time until it runs with the state that was loaded
    const before = statesOf(from, device);
    const runs = before.findLastIndex(({ phase }) => PHASES[phase].runs);
    const after = statesOf(to, device);
    const loads = after.findIndex(({ phase }) => phase === 'resuming');
    const stopped = before[runs + 1]?.asked;
    const started = after.slice(loads).find(({ phase }) => phase === 'running')?.begin;
    if (loads < 0 || stopped === undefined || started === undefined) console.log(`  ${device}: not known`);
    else console.log(`  ${device}: ${Math.round(started - stopped)} us`);
  }
}
