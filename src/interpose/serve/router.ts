import { VFIO_MIG_GET_PRECOPY_INFO } from '../../abi/vfio.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { arch } from '../../sys/libc.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import { lookNumbers } from '../trap/filter.ts';
import type { DataFds } from './data-fd.ts';
import { identify, identifyIfSeen, identifyLately, type Descriptor } from './descriptor.ts';
import type { Devices, OwnRegions } from './devices.ts';
import { forgetFile } from '../trap/file-look.ts';
import type { FdWindow } from '../run/plan.ts';
import type { ServedDevice } from './served-device.ts';
import { messageOf, warn } from '../run/log.ts';
import { AT_POSITION, duplicate, refuseOther } from '../trap/stand-in.ts';
import type { Together } from './together.ts';
import type { Turn } from '../memory/turn.ts';
import { deviceInWindow, offsetInRegion, ownRegionAt, REGIONS_HIGH } from '../run/window.ts';

const numbers = arch.syscalls;
const legacyDup2 = 'dup2' in numbers ? numbers.dup2 : -1;
const legacyOpen = 'open' in numbers ? numbers.open : -1;
const LOOKS: ReadonlySet<number> = new Set(lookNumbers(arch));

const [, DEVICE_STATE_AT] = vfio_device_migration_info.fields.device_state;
const [, DATA_SIZE_AT] = vfio_device_migration_info.fields.data_size;

/** To copy less takes no longer than it takes another CPU to wake, in bytes. */
const LARGE = 256 * 1024;

/** Finds out what a trapped call is about, and hands it to the device or data fd that it means. */
export class Router {
  readonly devices: Devices;
  readonly #peers: Together | undefined;
  /** Where the stand-ins of data fds are. */
  readonly #window: FdWindow | undefined;
  /** The device whose data was asked for by the latest call, and what it can do while its user takes that. */
  #ahead: { readonly device: ServedDevice; readonly act: () => void; readonly bytes: number } | undefined;

  constructor(devices: Devices, dataFds: FdWindow | undefined, peers?: Together) {
    this.devices = devices;
    this.#peers = peers;
    this.#window = dataFds;
  }

  /** Whether readAhead() will take so long that the target should go on meanwhile. */
  get goesOn(): boolean {
    return this.#ahead !== undefined && this.#ahead.bytes >= LARGE;
  }

  /**
   * Prepares, once a read of a data fd or of data_size was answered, what the next one will need, while the target takes what it has. True
   * if that may have changed something, which is to be committed with the call's result once more.
   */
  readAhead({ tid }: Call): boolean {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    if (ahead === undefined) return false;
    const { device, act } = ahead;
    try {
      if (!device.driver.enter(tid)) return false;
      act();
    } catch (error) {
      if (!(error instanceof ShimError)) throw error; // the next read says what is wrong
    } finally {
      device.leave();
    }
    return true;
  }

  /** The call has been served, and may have changed other devices than its own. */
  touchPeers(turn: Turn): void {
    for (const ledger of this.#peers?.takeChanged() ?? []) turn.touch(ledger);
  }

  /** Serves a call: its result, CONTINUE or ANSWERED. Throws what the caller is to get as an errno. */
  dispatch(turn: Turn): number {
    const { call } = turn;
    this.#ahead = undefined;
    switch (call.nr) {
      case numbers.pread64:
      case numbers.pwrite64:
        return deviceInWindow(call.high(3)) < 0 ? this.#ownRegion(turn) : this.#onRegion(turn, 0, 3);
      case numbers.ioctl:
        return this.#ioctl(turn);
      case numbers.mmap:
        return deviceInWindow(call.high(5)) < 0 ? this.#mapOwnRegion(call) : this.#onRegion(turn, 4, 5);
      case numbers.openat:
      case legacyOpen:
        return this.devices.open(turn);
      case numbers.read:
      case numbers.readv:
        return this.#read(turn);
      case numbers.write:
      case numbers.writev:
        return this.#write(turn);
      case numbers.preadv2:
        return isAtPosition(call) ? this.#read(turn) : this.#ownRegion(turn);
      case numbers.pwritev2:
        return isAtPosition(call) ? this.#write(turn) : this.#ownRegion(turn);
      case numbers.preadv:
      case numbers.pwritev:
        return this.#ownRegion(turn);
      case numbers.lseek:
        return this.#seek(call);
      case numbers.sendfile:
      case numbers.splice:
      case numbers.copy_file_range:
        return refuseOther(call);
      case numbers.dup:
      case numbers.dup3:
      case numbers.fcntl:
      case legacyDup2:
        return this.#duplicate(turn);
      default:
        return LOOKS.has(call.nr) ? (this.devices.look?.(call) ?? CONTINUE) : CONTINUE;
    }
  }

  #read(turn: Turn): number {
    return this.#dataFd(turn, (dataFds, device) => {
      const length = dataFds.read(turn.call);
      if (dataFds.readsAhead) this.#ahead = { device, act: () => dataFds.readAhead(), bytes: length };
      return length;
    });
  }

  #write(turn: Turn): number {
    return this.#dataFd(turn, (dataFds) => dataFds.write(turn.call));
  }

  /** A call on a device's descriptor at an offset in the window; the numbers say which arguments these are. */
  #onRegion(turn: Turn, fdArgument: number, offsetArgument: number): number {
    const { call } = turn;
    const high = call.high(offsetArgument);
    const device = this.devices.at(deviceInWindow(high));
    if (device === undefined || !device.driver.enter(call.tid, call.s32(fdArgument))) return CONTINUE;
    try {
      device.counted();
      const offset = offsetInRegion(high, call.u32(offsetArgument));
      const isRead = call.nr === numbers.pread64;
      // a read of device_state is not committed by itself: what it finds out, it finds out again when it is served again
      if (!isRead || offset !== DEVICE_STATE_AT) turn.touch(device.ledger);
      if (isRead) {
        const length = device.read(turn, offset);
        const act = offset === DATA_SIZE_AT ? device.readAhead : undefined;
        if (act !== undefined) this.#ahead = { device, act, bytes: device.lastRead };
        return length;
      }
      if (call.nr !== numbers.pwrite64) return this.#map(turn, device, offset);
      const length = device.write(turn, offset);
      const act = offset === DEVICE_STATE_AT ? device.readySection : undefined;
      if (act !== undefined) this.#ahead = { device, act, bytes: device.section.size };
      return length;
    } finally {
      device.leave();
    }
  }

  /** A call at an offset in a device's own regions; or one on a data fd, that has no answer to it but an error. */
  #ownRegion(turn: Turn): number {
    const { call } = turn;
    const high = call.high(3);
    const regions = isInRegions(high) ? this.#regionsOf(call, 0, identify) : undefined;
    if (regions === undefined) return refuseOther(call);
    const region = ownRegionAt(high);
    const offset = offsetInRegion(high, call.u32(3));
    return WRITES.has(call.nr) ? regions.write(turn, region, offset) : regions.read(turn, region, offset);
  }

  /** What is not refused, or another file's, the kernel may do. */
  #mapOwnRegion(call: Call): number {
    const high = call.high(5);
    const regions = this.#regionsOf(call, 4, identifyIfSeen);
    regions?.checkMap(call, ownRegionAt(high), offsetInRegion(high, call.u32(5)));
    return CONTINUE;
  }

  /** A device has no position that could be moved: vfio_device_fops has no llseek (fs/read_write.c of Linux 6.12: vfs_llseek). */
  #seek(call: Call): number {
    const regions = isInRegions(call.high(1)) ? this.#regionsOf(call, 0, identifyIfSeen) : undefined;
    if (regions !== undefined) throw refuse('ESPIPE', 'a device has no position');
    const fd = call.s32(0);
    const window = this.#window;
    return window !== undefined && fd >= window.first && fd <= window.last ? refuseOther(call) : CONTINUE;
  }

  /** The own regions of the device that an argument is a descriptor of, if they are served here. */
  #regionsOf(call: Call, argument: number, identifyFile: typeof identify): OwnRegions | undefined {
    const { devices } = this;
    if (devices.regionsOf === undefined) return undefined;
    const what = identifyFile(devices, call.tid, call.s32(argument));
    return what?.kind === 'device' ? devices.regionsOf(what.place) : undefined;
  }

  #map(turn: Turn, device: ServedDevice, offset: number): number {
    try {
      return device.map(turn, offset);
    } catch (error) {
      warn(`${device.name}: the data section is not mapped, migration will be slow: ${messageOf(error)}`);
      throw error;
    }
  }

  #ioctl(turn: Turn): number {
    const { call } = turn;
    const command = call.u32(1);
    // this number is an ioctl of containers too
    if (command === VFIO_MIG_GET_PRECOPY_INFO) {
      const what = identify(this.devices, call.tid, call.s32(0));
      if (isDataFd(what)) return this.#onDataFd(turn, what, (dataFds) => dataFds.ioctl(call, command));
    }
    return this.devices.ioctl(turn, command);
  }

  /** A call on a descriptor in the window of the stand-in data fds. */
  #dataFd(turn: Turn, serve: (dataFds: DataFds, device: ServedDevice) => number): number {
    const { call } = turn;
    const what = identifyLately(this.devices, call.tid, call.s32(0));
    return isDataFd(what) ? this.#onDataFd(turn, what, serve) : CONTINUE;
  }

  #onDataFd(turn: Turn, what: DataFd, serve: (dataFds: DataFds, device: ServedDevice) => number): number {
    const { call } = turn;
    const device = what.kind === 'data fd' ? this.devices.at(what.place) : undefined;
    const dataFds = device?.dataFds;
    if (device === undefined || dataFds === undefined) throw refuse('ENODEV', 'data fd: its session has ended');
    if (!device.driver.enter(call.tid)) throw refuse('ENODEV', 'data fd: the device was closed');
    try {
      turn.touch(device.ledger);
      device.counted();
      return serve(dataFds, device);
    } finally {
      device.leave();
    }
  }

  #duplicate({ call, answers }: Turn): number {
    const window = this.#window;
    if (window === undefined) return CONTINUE;
    forgetFile();
    return duplicate(call, answers, window);
  }
}

function isInRegions(high: number): boolean {
  return high >= REGIONS_HIGH[0] && high <= REGIONS_HIGH[1];
}

const WRITES: ReadonlySet<number> = new Set([numbers.pwrite64, numbers.pwritev, numbers.pwritev2]);

type DataFd = Extract<Descriptor, { readonly kind: 'data fd' | 'ended data fd' }>;

function isDataFd(what: Descriptor | undefined): what is DataFd {
  return what?.kind === 'data fd' || what?.kind === 'ended data fd';
}

/** preadv2 or pwritev2 that are readv or writev: at the file's own position, without flags. */
function isAtPosition(call: Call): boolean {
  return call.arg(3) === AT_POSITION && call.u32(5) === 0;
}
