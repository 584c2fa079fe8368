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
    const save =
      target.protocol === 'v1' ? new V1Save(target.device, sink, wait) : new V2Save(target.device, sink, wait);
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

/**
 * One pass, as nobody but the device itself changes its state meanwhile: until nothing is pending, nothing comes, or as much
 * has come as was pending at first.
 */
function preCopy(save: V1Save | V2Save, watch: SaveWatch): void {
  let left = save.pending();
  if (left > 0) watch.expect(left);
  while (left > 0 && save.pending() > 0) {
    const sent = save.iterate();
    if (sent === 0) return;
    left -= sent;
  }
}

/** 0 if the driver cannot tell, as none of v1 can before it saves. */
function promised(target: MigratableDevice): number {
  if (target.protocol === 'v1') return 0;
  try {
    return target.device.stopCopyLength();
  } catch {
    return 0;
  }
}
