import { sleepUntilReady, whenReady, type WaitForDevice } from '../wait.ts';
import { begunSession, writeData } from './data-fd.ts';
import type { V2DataSession, V2Device } from './device.ts';
import { V2, type V2State } from './states.ts';

/** How a v2 VMM restores a device, as QEMU 10 does it (hw/vfio/migration.c: vfio_load_setup to vfio_load_cleanup). */
export class V2Restore {
  readonly #device: V2Device;
  readonly #wait: WaitForDevice;
  #session: V2DataSession | undefined;

  constructor(device: V2Device, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    this.#wait = wait;
  }

  /** Enters RESUMING. */
  setup(): void {
    this.#session = begunSession(V2.RESUMING, this.#setState(V2.RESUMING));
  }

  /** Writes one piece of the state, wherever the stream was cut. */
  load(piece: Uint8Array): void {
    const session = this.#session;
    if (session === undefined) throw new Error('V2Restore.load: setup() has not been called');
    let written = 0;
    while (written < piece.length) {
      written += whenReady(() => writeData(session, piece.subarray(written)), this.#wait);
    }
  }

  /** Ends RESUMING: the device takes its state over, and runs or is stopped. */
  complete(running = true): void {
    this.#setState(running ? V2.RUNNING : V2.STOP);
    this.cleanup();
  }

  #setState(state: V2State): V2DataSession | undefined {
    return whenReady(() => this.#device.setState(state), this.#wait);
  }

  /** Closes the data session. A load that has failed ends so, and with a reset of the device. */
  cleanup(): void {
    this.#session?.close();
    this.#session = undefined;
  }
}
