import { ShimError } from '../../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../../v2/device.ts';
import { V2, type V2State } from '../../v2/states.ts';

/**
 * A device that gives no data in pre-copy, for servers that begin their stream anew at stop-and-copy: what they gave before would be there
 * twice. Its user sees pre-copy while the device simply runs, and that something is left: some look for that before they stop it
 * (libvfio-user until September 2023, samples/client.c: migrate_from).
 */
export class WithoutPrecopy implements V2Device {
  readonly migrationFlags: number;
  readonly #device: V2Device;
  #isShown = false;

  constructor(device: V2Device) {
    this.#device = device;
    this.migrationFlags = device.migrationFlags;
  }

  getState(): V2State {
    const state = this.#device.getState();
    if (state !== V2.RUNNING) this.#isShown = false;
    return this.#isShown ? V2.PRE_COPY : state;
  }

  setState(target: V2State): V2DataSession | undefined {
    if (target === V2.PRE_COPY || target === V2.PRE_COPY_P2P) {
      const isNew = this.getState() !== V2.PRE_COPY;
      if (isNew) this.#device.setState(V2.RUNNING);
      this.#isShown = true;
      return isNew ? emptySession : undefined;
    }
    const goesOn = target === V2.STOP_COPY && this.getState() === V2.PRE_COPY;
    const begun = this.#device.setState(target);
    this.#isShown = false;
    return goesOn ? undefined : begun;
  }

  openSession(): V2DataSession | undefined {
    return this.getState() === V2.PRE_COPY ? emptySession : this.#device.openSession();
  }

  stopCopyLength(): number {
    return this.#device.stopCopyLength();
  }

  reset(): void {
    this.#isShown = false;
    this.#device.reset();
  }
}

const emptySession: V2DataSession = {
  read: () => 0,
  write() {
    throw new ShimError('ERR_ACCESS', 'data fd: not open for this', { errno: 'EBADF' });
  },
  precopyInfo: (): PrecopyInfo => ({ initialBytes: 0, dirtyBytes: 1 }),
  close: () => {},
};
