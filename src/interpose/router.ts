import { errnoName } from '../abi/errno.ts';
import { O_CLOEXEC } from '../abi/fcntl.ts';
import { VFIO_MIG_GET_PRECOPY_INFO } from '../abi/vfio.ts';
import { inodeOf, inodeOfOwn } from '../sys/file.ts';
import { arch, failedWith } from '../sys/libc.ts';
import { readProcessString } from '../sys/process-memory.ts';
import type { Listener } from '../sys/seccomp.ts';
import { CONTINUE, refuse, type Call } from './call.ts';
import { duplicate, isStandIn, type DataFds } from './data-fd.ts';
import { deviceIoctl } from './device.ts';
import { Fabric } from './fabric.ts';
import type { JournalLayout, Ledger } from './journal.ts';
import { mapSection } from './map-section.ts';
import { FILES_PER_DEVICE, FIRST_FD, groupPath, type Plan, type PlannedDevice } from './plan.ts';
import { ANSWER_HOLDS, ServedDevice, type DeviceFiles } from './served-device.ts';
import { messageOf, warn } from './log.ts';
import { deviceInWindow, offsetInRegion } from './window.ts';

const numbers = arch.syscalls;
const legacyDup2 = 'dup2' in numbers ? numbers.dup2 : -1;
const legacyOpen = 'open' in numbers ? numbers.open : -1;
const PATH_MAX = 4096;

interface LastDataFd {
  readonly tid: number;
  readonly fd: number;
  readonly inode: number | undefined;
  readonly until: number;
}
const NO_DATA_FD: LastDataFd = { tid: 0, fd: -1, inode: undefined, until: 0 };

/** Finds out what a trapped call is about, and hands it to the device, container, group or data fd that it means. */
export class Router {
  readonly devices: readonly ServedDevice[];
  /** What the latest call changed, to be committed with its result; none for calls that change nothing of ours. */
  touched: Ledger | undefined;
  readonly #plan: Plan;
  readonly #listener: Listener;
  readonly #fabric: Fabric;
  readonly #nodes: ReadonlyMap<string, number>;
  readonly #deviceInodes: readonly number[];
  /** Which file a descriptor in the data fd window was, a moment ago: VMMs move their data in many small calls. */
  #lastDataFd: LastDataFd = NO_DATA_FD;

  constructor(plan: Plan, listener: Listener, layout: JournalLayout, journal: Uint8Array) {
    this.#plan = plan;
    this.#listener = listener;
    this.devices = plan.devices.map((device, n) => {
      const served = new ServedDevice(device, n, deviceFiles(n), layout.device(journal, n), { ...plan, warn });
      if (served.ledger.isFresh) served.ledger.commit();
      return served;
    });
    this.#deviceInodes = this.devices.map(({ files }) => inodeOfOwn(files.device));
    const { fabric, mappings } = layout.parts(journal);
    const send = (call: Call, fd: number, closeOnExec: boolean): void => this.#sendFd(call, fd, closeOnExec);
    this.#fabric = new Fabric(this.devices, fabric, mappings, send);
    if (this.#fabric.ledger.isFresh) {
      this.#fabric.save();
      this.#fabric.ledger.commit();
    }
    const groups = plan.devices.map((device: PlannedDevice, n) => [groupPath(device), n] as const);
    this.#nodes = new Map([['/dev/vfio/vfio', -1], ...groups]);
  }

  /** Everything that is committed, each by itself. */
  ledgers(): Ledger[] {
    return [this.#fabric.ledger, ...this.devices.map(({ ledger }) => ledger)];
  }

  /** Serves a call: its result, CONTINUE or ANSWERED. Throws what the caller is to get as an errno. */
  dispatch(call: Call): number {
    this.touched = undefined;
    switch (call.nr) {
      case numbers.pread64:
        return this.#access(call, false);
      case numbers.pwrite64:
        return this.#access(call, true);
      case numbers.ioctl:
        return this.#ioctl(call);
      case numbers.mmap:
        return this.#mmap(call);
      case numbers.openat:
        return this.#open(call, 1);
      case legacyOpen:
        return this.#open(call, 0);
      case numbers.read:
        return this.#dataFd(call, (dataFds) => dataFds.read(call));
      case numbers.write:
        return this.#dataFd(call, (dataFds) => dataFds.write(call));
      case numbers.dup:
      case numbers.dup3:
      case numbers.fcntl:
      case legacyDup2:
        return this.#duplicate(call);
      default:
        return CONTINUE;
    }
  }

  #access(call: Call, write: boolean): number {
    const high = call.high(3);
    const device = this.devices[deviceInWindow(high)];
    if (device === undefined) return CONTINUE;
    if (!device.isOpenAs(call.tid, call.s32(0))) return CONTINUE;
    this.touched = device.ledger;
    device.counted();
    const offset = offsetInRegion(high, call.u32(3));
    return write ? device.write(call, offset) : device.read(call, offset);
  }

  /** A read or write of a descriptor in the window of the stand-in data fds. */
  #dataFd(call: Call, serve: (dataFds: DataFds) => number): number {
    const { tid } = call;
    const fd = call.s32(0);
    const last = this.#lastDataFd;
    const now = performance.now();
    if (tid !== last.tid || fd !== last.fd || now >= last.until) {
      this.#lastDataFd = { tid, fd, inode: inodeOf(tid, fd), until: now + ANSWER_HOLDS };
    }
    const { inode } = this.#lastDataFd;
    return inode === undefined ? CONTINUE : this.#onDataFd(call, inode, serve);
  }

  #onDataFd(call: Call, inode: number, serve: (dataFds: DataFds) => number): number {
    const device = this.devices.find(({ dataFds }) => dataFds?.inode === inode);
    const dataFds = device?.dataFds;
    if (device === undefined || dataFds === undefined) {
      if (isStandIn(call.tid, call.s32(0))) throw refuse('ENODEV', 'data fd: its session has ended');
      return CONTINUE;
    }
    this.touched = device.ledger;
    device.counted();
    return device.onDataFd(() => serve(dataFds));
  }

  #duplicate(call: Call): number {
    const window = this.#plan.dataFds;
    if (window === undefined || !isStandIn(call.tid, call.s32(0))) return CONTINUE;
    this.#lastDataFd = NO_DATA_FD;
    return duplicate(call, this.#listener, window);
  }

  #mmap(call: Call): number {
    const high = call.high(5);
    const device = this.devices[deviceInWindow(high)];
    if (device === undefined) return CONTINUE;
    if (!device.isOpenAs(call.tid, call.s32(4))) return CONTINUE;
    const memory = { fd: device.files.section, size: device.plan.dataSection };
    try {
      return mapSection(call, this.#listener, memory, offsetInRegion(high, call.u32(5)));
    } catch (error) {
      warn(`${device.plan.name}: the data section is not mapped, migration will be slow: ${messageOf(error)}`);
      throw error;
    }
  }

  #open(call: Call, pathArgument: number): number {
    const path = readProcessString(call.tid, call.count(pathArgument), PATH_MAX);
    const node = path === undefined ? undefined : this.#nodes.get(path);
    if (node === undefined || !this.#listener.isValid(call.id)) return CONTINUE;
    const closeOnExec = (call.u32(pathArgument + 1) & O_CLOEXEC) !== 0;
    this.touched = this.#fabric.ledger;
    return node < 0 ? this.#fabric.openContainer(call, closeOnExec) : this.#fabric.openGroup(call, node, closeOnExec);
  }

  #ioctl(call: Call): number {
    const inode = inodeOf(call.tid, call.s32(0));
    if (inode === undefined) return CONTINUE;
    const command = call.u32(1);
    const index = this.#deviceInodes.indexOf(inode);
    const device = this.devices[index];
    if (device !== undefined) {
      this.touched = device.ledger;
      device.counted();
      const result = device.onDataFd(() =>
        deviceIoctl(call, command, device.plan, index, device, () => {
          this.#lastDataFd = NO_DATA_FD;
          return device.dataFds?.open(call, this.#listener) ?? -1;
        }),
      );
      device.noteState();
      return result;
    }
    if (command === VFIO_MIG_GET_PRECOPY_INFO && isStandIn(call.tid, call.s32(0))) {
      return this.#onDataFd(call, inode, (dataFds) => dataFds.ioctl(call, command));
    }
    const group = this.#fabric.group(inode);
    const container = this.#fabric.container(inode);
    if (group < 0 && container === undefined) return CONTINUE;
    if (!this.#listener.isValid(call.id)) throw refuse('EINTR', 'the caller is gone');
    this.touched = this.#fabric.ledger;
    return container === undefined
      ? this.#fabric.groupIoctl(call, command, group)
      : this.#fabric.containerIoctl(call, command, container);
  }

  /** Answers a call with a descriptor of the target's. What the call changed is committed before the target sees it. */
  #sendFd(call: Call, fd: number, closeOnExec: boolean): void {
    this.#fabric.ledger.commit();
    const result = this.#listener.addFd(call.id, fd, { send: true, closeOnExec: closeOnExec ? O_CLOEXEC : 0 });
    if (result >= 0 || failedWith(result, 'ENOENT')) return; // ENOENT: the target is gone
    throw refuse(errnoName(-result) ?? 'EIO', 'the target takes no descriptor');
  }
}

/** The descriptors of the n-th device, in the order in which the keeper hands them over. */
function deviceFiles(n: number): DeviceFiles {
  const first = FIRST_FD + 1 + n * FILES_PER_DEVICE;
  return {
    device: first,
    section: first + 1,
    sent: first + 2,
    group: first + 3,
    inner: first + 4,
    carry: first + 5,
    carryOuter: first + 6,
  };
}
