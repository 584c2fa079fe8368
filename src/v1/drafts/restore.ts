import { sleepUntilReady, whenReady, type WaitForDevice } from '../../wait.ts';
import type { Draft, DraftDevice } from './device.ts';
import { DraftAccess } from './registers.ts';
import { S2018, S2019 } from './states.ts';

/**
 * How a VMM of a draft restores a device: after the patches for QEMU of October 2018 and February 2019 (Kirti Wankhede, hw/vfio/migration.c:
 * vfio_load_setup, vfio_load_state, vfio_load_cleanup). Those take buffers of any size for ones that fit the data section; here one that
 * does not goes in several transactions.
 */
export class DraftRestore {
  readonly #device: DraftDevice;
  /** Both drafts have the registers that are written here, with the same names. */
  readonly #write: (register: 'device_state' | 'data_offset' | 'data_size', value: number) => void;

  constructor(device: DraftDevice, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    const registers: DraftAccess<Draft> = new DraftAccess(device, device.draft);
    this.#write = (register, value) => whenReady(() => registers.write(register, value), wait);
  }

  /** load_setup, or in 2019, the migration becomes active. */
  setup(): void {
    const { draft } = this.#device;
    this.#write('device_state', draft === 'draft-2018' ? S2018.MIGRATION_RESUME : S2019.STOPPED_OR_RESUMING);
  }

  /** load_state: one buffer of the source. In 2019 it writes once more that the device is to resume. */
  load(buffer: Uint8Array): void {
    const { draft, dataSection, mapped } = this.#device;
    if (draft === 'draft-2019') this.#write('device_state', S2019.STOPPED_OR_RESUMING);
    for (let done = 0; done < buffer.length; done += dataSection.size) {
      const piece = buffer.subarray(done, done + dataSection.size);
      mapped.set(piece);
      this.#write('data_offset', dataSection.offset);
      this.#write('data_size', piece.length);
    }
  }

  /** load_cleanup, which only 2018 has a state for, and the VM starts. */
  complete(running = true): void {
    if (this.#device.draft === 'draft-2018') this.#write('device_state', S2018.MIGRATION_RESUME_COMPLETED);
    if (running) this.#write('device_state', S2018.RUNNING);
  }
}
