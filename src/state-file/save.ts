import { Draft2018Save } from '../v1/drafts/save-2018.ts';
import { Draft2019Save } from '../v1/drafts/save-2019.ts';
import { V1Save } from '../v1/save.ts';
import { V2Save } from '../v2/save.ts';
import type { WaitForDevice } from '../wait.ts';
import { recovering, run, type MigratableDevice } from '../device/migratable.ts';

export interface SaveWatch {
  readonly wait: WaitForDevice;
  /** How many bytes of the state are expected from now on. */
  expect(bytes: number): void;
}

/**
 * Saves a device as a VMM does, then lets it run again: pre-copy if the driver has it, then stop, stop-and-copy, RUNNING.
 * Each buffer goes to `sink` as the driver gave it. On any failure, `sink`'s too, the device runs again, reset if need be.
 */
export function saveDevice(target: MigratableDevice, sink: (buffer: Uint8Array) => void, watch: SaveWatch): void {
  const { wait } = watch;
  recovering(target, 'run', () => {
    watch.expect(promised(target));
    const save = saveOf(target, sink, wait);
    try {
      save.setup();
      preCopy(save, watch);
      save.stop();
      save.complete();
    } finally {
      if (save instanceof V2Save) save.cleanup();
    }
    run(target, wait);
  });
}

type Save = V1Save | V2Save | Draft2018Save | Draft2019Save;

/** The procedure of a VMM that speaks what the device does. */
function saveOf(target: MigratableDevice, sink: (buffer: Uint8Array) => void, wait: WaitForDevice): Save {
  switch (target.protocol) {
    case 'v1':
      return new V1Save(target.device, sink, wait);
    case 'v2':
      return new V2Save(target.device, sink, wait);
    case 'draft-2018':
      return new Draft2018Save(target.device, sink, wait);
    case 'draft-2019':
      return new Draft2019Save(target.device, sink, wait);
  }
}

/**
 * One pass, as nobody but the device itself changes its state meanwhile: until nothing is pending, nothing comes, or as much
 * has come as was pending at first.
 */
function preCopy(save: Save, watch: SaveWatch): void {
  let left = save.pending();
  if (left > 0) watch.expect(left);
  while (left > 0 && save.pending() > 0) {
    const sent = save.iterate();
    if (sent === 0) return;
    left -= sent;
  }
}

/** 0 if the driver cannot tell, as none can before it saves but those of v2. */
function promised(target: MigratableDevice): number {
  if (target.protocol !== 'v2') return 0;
  try {
    return target.device.stopCopyLength();
  } catch {
    return 0;
  }
}
