import { closeSync } from 'node:fs';
import { errnoNumber } from '../../abi/errno.ts';
import { seccomp_notif } from '../../abi/seccomp.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
  vfio_precopy_info,
} from '../../abi/vfio-v2.ts';
import { VFIO_DEVICE_FEATURE, VFIO_MIG_GET_PRECOPY_INFO } from '../../abi/vfio.ts';
import { errnoNameOrEio, ShimError } from '../../error.ts';
import { featureRequest } from '../../vfio/client/features.ts';
import type { DriverName } from '../../sim/drivers.ts';
import { smallSpec } from '../../sim/spec.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { arch, trySyscall, withAddress } from '../../sys/libc.ts';
import { createSharedMemory } from '../../sys/memory.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import type { DraftDevice } from '../../v1/drafts/device.ts';
import type { V1Device } from '../../v1/device.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../../v2/device.ts';
import type { V2State } from '../../v2/states.ts';
import { Call } from '../trap/call.ts';
import type { EmulatedDevice } from '../emulated/emulated-driver.ts';
import { Emulation } from '../emulated/emulation.ts';
import { JournalLayout } from '../memory/journal.ts';
import { deviceFiles, filesOf } from '../memory/inherited.ts';
import { RecordingRing, RING_HEADER } from '../memory/recording-ring.ts';
import { Ledgers } from '../memory/ledger.ts';
import { planDevice } from '../run/plan-device.ts';
import type { Plan } from '../run/plan.ts';
import { AccessRecorder } from '../serve/access-recorder.ts';
import { Router } from '../serve/router.ts';
import { serve } from '../serve/serve.ts';
import { Turn } from '../memory/turn.ts';
import { regionOffset } from '../run/window.ts';

const numbers = arch.syscalls;
const SECTION = 8192;
/** Room for the lines of one call, whatever the device tells. */
const RING_SIZE = RING_HEADER + 2 ** 17;

/** What serves a target, with a small device of its own, and with this process as the target. */
export class RehearsalTarget implements Disposable {
  /** The device as it is shown, each access a call that is served. */
  readonly v1: V1Device | undefined;
  readonly draft: DraftDevice | undefined;
  readonly v2: V2Device | undefined;
  readonly #files: readonly OwnedFd[];
  readonly #dataFds = new Set<number>();
  readonly #device: number;
  readonly #router: Router;
  readonly #answers = new OwnAnswers();
  readonly #call = new Call(new Uint8Array(seccomp_notif.size));
  readonly #turn: Turn;
  /** Records what is rehearsed, if the run is recorded, and keeps none of it. */
  readonly #recorder: AccessRecorder | undefined;
  readonly #ring: RecordingRing | undefined;

  constructor(plan: Plan, driver: DriverName) {
    const planned = planDevice(0, driver, smallSpec(driver), SECTION);
    const own: Plan = { ...plan, devices: [planned] };
    this.#files = filesOf(planned).map(({ name, size }) => createSharedMemory(name, size));
    const files = deviceFiles(this.#files.map(({ number }) => number));
    this.#device = files.device;
    const layout = new JournalLayout(1);
    const journal = new Uint8Array(layout.size);
    const ledgers = new Ledgers(layout.ledgers(journal));
    if (plan.recording !== undefined) {
      this.#ring = new RecordingRing(new Uint8Array(RING_SIZE));
      this.#recorder = new AccessRecorder({ ring: this.#ring, wake: -1, data: undefined });
    }
    const options = { ...own, warn: () => {}, log: undefined, peers: undefined, recorder: this.#recorder };
    const emulation = new Emulation(own, { layout, journal, ledgers, filesOf: () => files, areGranted: true }, options);
    this.#router = new Router(emulation, plan.dataFds);
    this.#turn = new Turn(this.#answers, ledgers, this.#call);
    const served = emulation.at(0);
    const region = served?.region;
    if (served !== undefined && region !== undefined) {
      const { regionSize, dataSection, mapped } = region;
      const shown = { regionSize, dataSection, ...this.#accesses(served) };
      if ('draft' in region) this.draft = { ...shown, draft: region.draft, mapped: region.mapped };
      else this.v1 = { ...shown, mapped: served.section.isDrivers ? mapped : undefined }; // some have their data moved by mmap only
    }
    if (served?.v2 !== undefined && plan.dataFds !== undefined)
      this.v2 = this.#showV2(served, served.v2.migrationFlags);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#dataFds) closeSync(fd); // of a migration that was cut short
    for (const file of this.#files) file.close();
  }

  /** SAFETY: argsz, in `argument`, says no more than its length. */
  #ioctl(name: string, fd: number, command: number, argument: Uint8Array): void {
    withAddress(argument, (at) => this.#make(name, numbers.ioctl, [fd, command, at]));
  }

  /**
   * Makes a call, and returns what the target would get. Throws if that is an error. SAFETY: whoever passes an address keeps what is
   * there (withAddress()), and passes its length.
   */
  #make(name: string, nr: number, args: readonly (number | bigint)[]): number {
    const { words } = this.#call;
    seccomp_notif.encode({ id: 1n, pid: process.pid, nr }, new Uint8Array(words.buffer));
    for (const [n, arg] of args.entries()) {
      words[ARGS + 2 * n] = Number(BigInt(arg) & 0xffff_ffffn);
      words[ARGS + 2 * n + 1] = Number((BigInt(arg) >> 32n) & 0xffff_ffffn);
    }
    const answers = this.#answers;
    if (serve(this.#call, this.#turn, this.#router, this.#recorder) !== undefined)
      answers.error = -errnoNumber('EAGAIN');
    this.#ring?.forget();
    if (answers.error >= 0) return answers.value;
    const errno = errnoNameOrEio(-answers.error);
    throw new ShimError('ERR_DEVICE', `rehearsal: ${name}: ${errno}`, { errno });
  }

  /** Accesses to the migration region. */
  #accesses(served: EmulatedDevice): Pick<V1Device, 'read' | 'write' | 'reset'> {
    const at = (offset: number): bigint => regionOffset(0) + BigInt(offset);
    const { pread64, pwrite64 } = numbers;
    const access = (nr: number, offset: number, bytes: Uint8Array): void => {
      withAddress(bytes, (from) => this.#make('access', nr, [this.#device, from, bytes.length, at(offset)]));
    };
    return {
      read: (offset, into) => access(pread64, offset, into),
      write: (offset, from) => access(pwrite64, offset, from),
      reset: () => served.reset(),
    };
  }

  #showV2(served: EmulatedDevice, migrationFlags: number): V2Device {
    const feature = (flags: number, data: Uint8Array): Uint8Array => {
      const bytes = featureRequest(flags, data);
      this.#ioctl('VFIO_DEVICE_FEATURE', this.#device, VFIO_DEVICE_FEATURE, bytes);
      return bytes.subarray(vfio_device_feature.size);
    };
    const get = (index: number, size: number): Uint8Array =>
      feature(VFIO_DEVICE_FEATURE_GET | index, new Uint8Array(size));
    const state = vfio_device_feature_mig_state;
    return {
      get migrationFlags() {
        get(VFIO_DEVICE_FEATURE_MIGRATION, vfio_device_feature_migration.size);
        return migrationFlags;
      },
      getState: () => state.decode(get(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, state.size)).device_state as V2State,
      setState: (target) => {
        const data = state.encode({ device_state: target, data_fd: -1 });
        const { data_fd } = state.decode(feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, data));
        return data_fd < 0 ? undefined : this.#session(data_fd);
      },
      openSession: () => undefined,
      stopCopyLength: () => {
        const size = vfio_device_feature_mig_data_size;
        return Number(size.decode(get(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, size.size)).stop_copy_length);
      },
      reset: () => served.reset(),
    };
  }

  #session(fd: number): V2DataSession {
    this.#dataFds.add(fd);
    return {
      read: (into) => withAddress(into, (at) => this.#make('read', numbers.read, [fd, at, into.length])),
      write: (from) => withAddress(from, (at) => this.#make('write', numbers.write, [fd, at, from.length])),
      precopyInfo: (): PrecopyInfo => {
        const bytes = vfio_precopy_info.encode({ argsz: vfio_precopy_info.size });
        this.#ioctl('VFIO_MIG_GET_PRECOPY_INFO', fd, VFIO_MIG_GET_PRECOPY_INFO, bytes);
        const { initial_bytes, dirty_bytes } = vfio_precopy_info.decode(bytes);
        return { initialBytes: Number(initial_bytes), dirtyBytes: Number(dirty_bytes) };
      },
      close: () => {
        if (this.#dataFds.delete(fd)) closeSync(fd);
      },
    };
  }
}

const ARGS = seccomp_notif.fields.args0[1] / 4;

/** Answers of calls that this process makes to itself. */
class OwnAnswers implements NotificationReply {
  value = 0;
  error = 0;

  respond(_words: Uint32Array, value: number, error: number): void {
    this.value = value;
    this.error = error;
  }

  isValid(): boolean {
    return true;
  }

  goesOn(): void {
    // nobody is woken
  }

  addFd(_id: bigint, source: number, { at = -1, closeOnExec = 0 } = {}): number {
    return trySyscall('dup3', source, at, closeOnExec);
  }
}
