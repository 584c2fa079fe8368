import { sleepUntilReady, whenReady, type WaitForDevice } from '../wait.ts';
import { wholeMappedAt } from './data-section.ts';
import type { V1Device } from './device.ts';
import { V1RegisterAccess } from './registers.ts';
import { V1 } from './states.ts';

/** How a v1 VMM restores a device, as QEMU 7.2 does it (hw/vfio/migration.c: vfio_load_setup, vfio_load_buffer). */
export class V1Restore {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #wait: WaitForDevice;

  constructor(device: V1Device, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    this.#registers = new V1RegisterAccess(device);
    this.#wait = wait;
  }

  /** load_setup: enters RESUMING. */
  setup(): void {
    whenReady(() => this.#registers.setDeviceState(V1.RESUMING), this.#wait);
  }

  /** load_buffer: one buffer of the source; one larger than the data section goes in several transactions. */
  load(buffer: Uint8Array): void {
    let done = 0;
    while (done < buffer.length) {
      const { offset, size } = whenReady(() => this.#registers.dataSpace(), this.#wait);
      const piece = buffer.subarray(done, done + size);
      const room = wholeMappedAt(this.#device, offset, piece.length);
      if (room === undefined) whenReady(() => this.#device.write(offset, piece), this.#wait);
      else room.set(piece);
      whenReady(() => this.#registers.setDataSize(piece.length), this.#wait);
      done += piece.length;
    }
  }

  /** Leaves RESUMING, straight for RUNNING as the VM starts, or for STOP. */
  complete(running = true): void {
    whenReady(() => this.#registers.setDeviceState(running ? V1.RUNNING : V1.STOP), this.#wait);
  }
}
