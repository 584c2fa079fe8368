import { randomFillSync } from 'node:crypto';
import { presentV2 } from '../bridge/present-v2.ts';
import { stateIn } from '../device/device-event.ts';
import { observe } from '../device/observe.ts';
import { createSim } from '../sim/create.ts';
import { parseSpec } from '../sim/spec.ts';
import { ShimError } from '../error.ts';
import type { V2Device } from '../v2/device.ts';
import { V2Restore } from '../v2/restore.ts';
import { V2Save } from '../v2/save.ts';
import { sha256 } from './hash.ts';
import { verified, type PartResult } from './result.ts';
import type { EndName } from './shimmed.ts';
import { mib, milliseconds, type Story } from './story.ts';

const DEVICE = 'vendor-v1,size=64M,dirty=4';
/** What each end's memory is filled with at first. */
const SEEDS = { source: 7, destination: 8 } as const;
/** Pre-copy ends when this little is left, or after this many rounds. */
const FEW_BYTES = 64 * 1024;
const MAX_BLOCKS = 10_000;
const LATE_BYTES = 1024 * 1024;

/** Part 2: a v2 VMM, in this process, and a device that only speaks v1. */
export function migrateWithNewVmm(story: Story): PartResult {
  const source = presented('source', story);
  const destination = presented('destination', story);
  story.step('migration', `presentV2() shows the v1 devices ${DEVICE} to a v2 VMM, in this process`);

  const begin = performance.now();
  const restore = new V2Restore(destination.device);
  restore.setup();
  const save = new V2Save(source.device, (piece) => restore.load(piece));
  save.setup();
  const sent = preCopy(save);
  story.step('source', `${mib(sent)} sent in pre-copy; meanwhile the device has dirtied its own pages`);
  const late = source.bar.subarray(source.bar.length / 2).subarray(0, LATE_BYTES);
  randomFillSync(late);
  const writtenSha256 = sha256(late);
  story.step('source', `the guest has written ${mib(LATE_BYTES)} of random bytes while pre-copy runs`);

  const stopped = performance.now();
  save.stop();
  story.step('source', `${mib(save.complete())} sent in stop-and-copy`);
  restore.complete();
  const end = performance.now();
  story.step('migration', `completed, downtime ${milliseconds((end - stopped) / 1000)}`);
  const arrived = destination.bar.subarray(source.bar.length / 2).subarray(0, LATE_BYTES);
  return verified({
    vmm: 'a small v2 VMM',
    vmmProtocol: 'v2',
    device: DEVICE,
    deviceProtocol: 'v1',
    guestMemoryBytes: source.bar.length,
    writtenSha256,
    readSha256: sha256(arrived),
    transferSeconds: (end - begin) / 1000,
    downtimeSeconds: (end - stopped) / 1000,
    source: { ...source.seen, sha256: sha256(source.bar) },
    destination: { ...destination.seen, sha256: sha256(destination.bar) },
  });
}

/** Sends blocks while the device runs, until little is left. Returns the bytes sent. */
function preCopy(save: V2Save): number {
  let sent = 0;
  for (let block = 0; block < MAX_BLOCKS && save.pending() > FEW_BYTES; block += 1) sent += save.iterate();
  return sent;
}

interface Presented {
  readonly device: V2Device;
  readonly bar: Uint8Array;
  readonly seen: { readonly states: string[]; bytes: number; buffers: number };
}

function presented(name: EndName, story: Story): Presented {
  const sim = createSim(parseSpec(`${DEVICE},seed=${SEEDS[name]}`));
  if (sim.protocol !== 'v1') throw new ShimError('ERR_ARGUMENT', `${DEVICE} does not speak v1`);
  const seen = { states: ['RUNNING'], bytes: 0, buffers: 0 };
  const driver = observe(sim, (event) => {
    if (event.errno !== undefined || event.call !== 'register') return;
    const { register, value } = event;
    const state = stateIn(event);
    if (register === 'data_size' && value > 0) {
      seen.bytes += value;
      seen.buffers += 1;
    } else if (state !== undefined && state !== seen.states.at(-1)) {
      seen.states.push(state);
      story.step(name, `the device is in ${state} (v1 device_state ${value})`);
    }
  });
  return { device: presentV2(driver.device), bar: sim.bar, seen };
}
