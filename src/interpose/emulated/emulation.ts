import { join, relative } from 'node:path';
import { O_ACCMODE, O_CLOEXEC, O_RDONLY } from '../../abi/fcntl.ts';
import { KVM_SET_DEVICE_ATTR } from '../../abi/kvm.ts';
import { VFIO_DEVICE_FEATURE } from '../../abi/vfio.ts';
import { errnoNameOrEio, hasErrno, ShimError } from '../../error.ts';
import { rehearsedAs, type DriverName } from '../../sim/drivers.ts';
import { EventFd } from '../../sys/event-fd.ts';
import { inodeOf, openDirectory } from '../../sys/file.ts';
import { arch, failedWith } from '../../sys/libc.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import type { FdStore } from '../../sys/socket.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { ANSWERED, CONTINUE, type Call } from '../trap/call.ts';
import { clock } from '../trap/call-time.ts';
import { CallArgument } from '../trap/call-argument.ts';
import { deviceRequest } from '../../vfio/server/device-requests.ts';
import { HOT_RESETS, hotResetRequest } from '../../vfio/server/hot-reset.ts';
import { identify, type Descriptor } from '../serve/descriptor.ts';
import type { AccessRecorder } from '../serve/access-recorder.ts';
import type { Devices, OwnRegions } from '../serve/devices.ts';
import { featureAsked } from '../serve/request-names.ts';
import type { EmulatedDma } from './emulated-dma.ts';
import { aloneOnBus } from './alone-on-bus.ts';
import { emulatedDevice, type EmulatedDevice, type EmulatedDriver } from './emulated-driver.ts';
import { UnmaskWatch, type EventFdShelf } from './emulated-irqs.ts';
import { CDEV_REQUESTS } from './iommufds.ts';
import { setDeviceAttr } from './kvm-files.ts';
import { MappedProcesses } from './mapped-processes.ts';
import { isOpen } from './node-files.ts';
import { directoriesOf, nodesOf, type Node } from './node-paths.ts';
import { answerLook, lookOf } from './node-stat.ts';
import { EmulatedOwnRegions } from './own-regions.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import { VfioNodes } from './vfio-nodes.ts';
import { forgetFile } from '../trap/file-look.ts';
import type { JournalLayout } from '../memory/journal.ts';
import type { Ledgers } from '../memory/ledger.ts';
import type { Plan } from '../run/plan.ts';
import { listedPath } from '../run/plan-device.ts';
import type { DeviceReport } from '../serve/report.ts';
import type { ServeOptions } from '../serve/served-device.ts';
import type { Turn } from '../memory/turn.ts';

const numbers = arch.syscalls;
const PATH_MAX = 4096;

/** The memory of emulated devices: the journal, and the files of each. */
export interface EmulationMemory {
  readonly layout: JournalLayout;
  readonly journal: Uint8Array;
  readonly ledgers: Ledgers;
  readonly filesOf: (device: number) => DeviceFiles;
  /** Whoever has a device's file may use it, as in a rehearsal, which has no nodes to open it by. */
  readonly areGranted?: boolean;
  /** Without it, all drivers have data fds as those without poll. */
  readonly storeOf?: (device: number) => FdStore;
  /** Where eventfds are kept for a successor; without it they end with this process. */
  readonly shelfOf?: (device: number) => EventFdShelf;
}

/** Whole devices that are not there, with their groups and containers: for machines without hardware. */
export class Emulation implements Devices {
  readonly #devices: readonly EmulatedDevice[];
  readonly #unmask = new UnmaskWatch();
  /** The devices that do DMA. */
  readonly #working: readonly { readonly dma: EmulatedDma; readonly place: number }[];
  /** The devices that raise interrupts by themselves. */
  readonly #raising: readonly EmulatedDriver[];
  readonly #nodes: VfioNodes;
  readonly #nodePaths: readonly Node[];
  /** Where the directories are that stand for those in /dev. */
  readonly #listed: string | undefined;
  readonly #areGranted: boolean;
  readonly #deviceInodes: readonly number[];
  readonly #recorder: AccessRecorder | undefined;

  constructor(plan: Plan, memory: EmulationMemory, options: ServeOptions) {
    const { layout, journal, ledgers, filesOf, storeOf, shelfOf, areGranted = false } = memory;
    this.#areGranted = areGranted;
    const processes = new MappedProcesses();
    this.#recorder = options.recorder;
    this.#devices = plan.devices.map((device, n) =>
      emulatedDevice(
        device,
        n,
        {
          ledger: layout.deviceLedger(journal, ledgers, n),
          files: filesOf(n),
          dataFdStore: storeOf?.(n),
          eventFdShelf: shelfOf?.(n),
          processes,
          unmask: this.#unmask,
        },
        options,
      ),
    );
    this.#working = this.#devices.flatMap(({ driver: { dma } }, place) => (dma === undefined ? [] : [{ dma, place }]));
    this.#raising = this.#devices.map(({ driver }) => driver).filter(({ irqs }) => irqs.hasRate);
    this.#deviceInodes = this.#devices.map(({ driver }) => driver.inode);
    const { mappings } = layout.parts(journal);
    const kernel = plan.devices.some(({ spec }) => spec.kernel === '7.1') ? '7.1' : '6.12';
    this.#nodes = new VfioNodes(this.#devices, layout.nodesLedger(journal, ledgers), mappings, sendFd, kernel);
    if (this.#nodes.ledger.isFresh) {
      this.#nodes.save();
      ledgers.commit([this.#nodes.ledger, ...this.#devices.map(({ ledger }) => ledger)]);
    }
    this.#nodePaths = [...nodesOf(plan), ...directoriesOf(plan)];
    this.#listed = plan.sysfs && join(plan.sysfs.path, listedPath);
  }

  at(place: number): EmulatedDevice | undefined {
    return this.#devices[place];
  }

  whose(inode: number): Descriptor | undefined {
    const device = this.#deviceInodes.indexOf(inode);
    if (device >= 0) return { kind: 'device', place: device };
    const place = this.#devices.findIndex(({ dataFds }) => dataFds?.file === inode);
    return place >= 0 ? { kind: 'data fd', place } : this.#nodes.whose(inode);
  }

  reports(): DeviceReport[] {
    return this.#devices.map((device) => device.report());
  }

  rehearsalDrivers(): DriverName[] {
    if (this.#devices.some(({ hasLeftRunning }) => hasLeftRunning)) return [];
    return [...new Set(this.#devices.map(({ driver }) => rehearsedAs(driver.plan.spec)))];
  }

  /** At each turn of who serves: devices that do nothing by themselves are not asked. */
  work(): number {
    if (this.#unmask.fd >= 0) for (const { driver } of this.#devices) driver.irqs.interrupts.unmaskIfAsked();
    if (this.#working.length === 0 && this.#raising.length === 0) return Number.POSITIVE_INFINITY;
    const now = clock.now();
    let next = Number.POSITIVE_INFINITY;
    for (const { dma, place } of this.#working) next = Math.min(next, dma.work(now, this.#nodes.reachOf(place)));
    for (const { irqs, files } of this.#raising)
      next = Math.min(
        next,
        irqs.work(now, () => isOpen(files.device)),
      );
    return next;
  }

  /** It is readable once somebody has unmasked an interrupt by an eventfd. */
  get wakeFd(): number {
    return this.#unmask.fd;
  }

  ioctl(turn: Turn, command: number): number {
    const { call } = turn;
    if (command === KVM_SET_DEVICE_ATTR) return setDeviceAttr(call, this);
    const what = identify(this, call.tid, call.s32(0));
    if (what?.kind === 'group' || what?.kind === 'container' || what?.kind === 'iommufd') {
      this.#recorder?.onNode(what.kind, this.#nodeOf(what)?.path ?? '');
      turn.touch(this.#nodes.ledger);
      return this.#nodes.ioctl(turn, command, what);
    }
    const place = what?.kind === 'device' ? what.place : -1;
    const device = this.#devices[place];
    if (device === undefined) return CONTINUE;
    turn.touch(device.ledger);
    if (CDEV_REQUESTS.has(command)) turn.touch(this.#nodes.ledger);
    device.counted();
    device.usedBy(call.tid);
    try {
      const answered = this.#areGranted ? undefined : this.#nodes.iommufds.deviceIoctl(turn, command, place);
      if (answered !== undefined) return answered;
      const argument = new CallArgument(call);
      if (HOT_RESETS.has(command)) {
        const devid = this.#nodes.iommufds.idOf(place);
        const asker = { tid: call.tid, devid, devices: this.#devices, whose: (inode: number) => this.whose(inode) };
        return hotResetRequest(argument, command, aloneOnBus(device, asker));
      }
      if (command === VFIO_DEVICE_FEATURE) this.#recorder?.asksFor(featureAsked(argument));
      return deviceRequest(argument, command, device, device.driver.regions, {
        openDataFd: (resuming, tell) => device.openDataFd(turn, resuming, tell),
        takeEventFd: (fd) => takeEventFd(call.tid, fd),
      });
    } finally {
      device.leave();
    }
  }

  regionsOf(place: number): OwnRegions | undefined {
    const device = this.#devices[place];
    const grants = (tid: number, fd: number): boolean =>
      this.#areGranted || this.#nodes.iommufds.grants(tid, fd, place);
    return device && new EmulatedOwnRegions(device, grants);
  }

  open(turn: Turn): number {
    const { call } = turn;
    const pathArgument = call.nr === numbers.openat ? 1 : 0;
    const node = this.#nodeAt(pathOf(call, pathArgument));
    if (node === undefined) return CONTINUE;
    const flags = call.u32(pathArgument + 1);
    const closeOnExec = (flags & O_CLOEXEC) !== 0;
    if (node.kind === 'directory') return this.#openDirectory(turn, node, flags);
    if ((flags & arch.openFlags.O_DIRECTORY) !== 0) throw refuse('ENOTDIR', `open ${node.path}`);
    this.#recorder?.onNode(node.kind, node.path);
    turn.touch(this.#nodes.ledger);
    switch (node.kind) {
      case 'container':
        return this.#nodes.openContainer(turn, closeOnExec);
      case 'iommufd':
        return this.#nodes.iommufds.open(turn, closeOnExec);
      case 'group':
        return this.#nodes.openGroup(turn, node.place, closeOnExec);
      case 'cdev':
        return this.#nodes.iommufds.openDevice(turn, node.place, closeOnExec);
    }
  }

  #openDirectory(turn: Turn, { path }: Node, flags: number): number {
    if (this.#listed === undefined) return CONTINUE;
    if ((flags & O_ACCMODE) !== O_RDONLY) throw refuse('EISDIR', `open ${path}`);
    using directory = openDirectory(join(this.#listed, relative('/dev', path)));
    sendFd(turn, directory.number, (flags & O_CLOEXEC) !== 0);
    return ANSWERED;
  }

  look(call: Call): number {
    const look = lookOf(call);
    if (look === undefined) return CONTINUE;
    const path = look.path === undefined ? '' : pathOf(call, look.path);
    const node = path === '' ? this.#nodeBehind(call, look.fd) : this.#nodeAt(path);
    if (node === undefined) return CONTINUE;
    if (node.kind !== 'directory') this.#recorder?.onNode(node.kind, node.path);
    return answerLook(call, look, node);
  }

  #nodeAt(path: string | undefined): Node | undefined {
    if (path?.startsWith('/dev/') !== true) return undefined;
    const name = path.replace(/\/+$/, '');
    return this.#nodePaths.find((node) => node.path === (node.kind === 'directory' ? name : path));
  }

  /** The node that a descriptor was opened by; none of a device that its group has given out. */
  #nodeBehind(call: Call, fd: number | undefined): Node | undefined {
    if (fd === undefined || fd < 0) return undefined;
    const inode = seen(() => inodeOf(call.tid, fd));
    const what = inode === undefined ? undefined : this.whose(inode);
    return what?.kind === 'device' && this.#nodes.iommufds.isGroups(what.place) ? undefined : this.#nodeOf(what);
  }

  #nodeOf(what: Descriptor | undefined): Node | undefined {
    switch (what?.kind) {
      case 'container':
      case 'iommufd':
        return this.#nodePaths.find(({ kind }) => kind === what.kind);
      case 'group':
        return this.#nodePaths.find(({ kind, place }) => kind === 'group' && place === what.group);
      case 'device':
        return this.#nodePaths.find(({ kind, place }) => kind === 'cdev' && place === what.place);
      default:
        return undefined;
    }
  }
}

/** The eventfd of a process, which a request of one of its threads names. */
function takeEventFd(tid: number, fd: number): EventFd {
  const taken = duplicateFd(tid, fd);
  if (taken === undefined) throw refuse('EBADF', `SET_IRQS: the caller has no descriptor ${fd}`);
  const event = EventFd.of(taken);
  if (event === undefined) throw refuse('EINVAL', `SET_IRQS: descriptor ${fd} is none of an eventfd`);
  return event;
}

/** Answers a call with a descriptor of the target's. What the call has changed counts before the target sees it. */
function sendFd(turn: Turn, fd: number, closeOnExec: boolean): void {
  turn.settle();
  forgetFile();
  const result = turn.answers.addFd(turn.call.id, fd, { send: true, closeOnExec: closeOnExec ? O_CLOEXEC : 0 });
  if (result >= 0 || failedWith(result, 'ENOENT')) return; // ENOENT: the target is gone
  throw refuse(errnoNameOrEio(-result), 'the target takes no descriptor');
}

/** What cannot be told is the kernel's to answer, and nobody's to be warned of: nothing follows from how a file looks. */
function seen<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}

/**
 * The path that a call names; `undefined` if there is none, or if this process may not read it: what is emulated exists
 * nowhere else, so the kernel says ENOENT of it, and all other files are the kernel's anyway.
 */
function pathOf(call: Call, argument: number): string | undefined {
  try {
    return call.stringArg(argument, PATH_MAX);
  } catch (error) {
    if (hasErrno(error, 'EPERM') || hasErrno(error, 'EACCES')) return undefined;
    throw error;
  }
}
