import { O_CLOEXEC } from '../../abi/fcntl.ts';
import { VFIO_DEVICE_FEATURE } from '../../abi/vfio.ts';
import { errnoNameOrEio, hasErrno } from '../../error.ts';
import { rehearsedAs, type DriverName } from '../../sim/drivers.ts';
import { arch, failedWith } from '../../sys/libc.ts';
import type { FdStore } from '../../sys/socket.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import { CallArgument } from '../trap/call-argument.ts';
import { deviceRequest } from '../../vfio/server/device-requests.ts';
import { identify, type Descriptor } from '../serve/descriptor.ts';
import type { AccessRecorder } from '../serve/access-recorder.ts';
import type { Devices } from '../serve/devices.ts';
import { featureAsked } from '../serve/request-names.ts';
import type { EmulatedDma } from './emulated-dma.ts';
import { emulatedDevice, type EmulatedDevice } from './emulated-driver.ts';
import { MappedProcesses } from './mapped-processes.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import { VfioNodes } from './vfio-nodes.ts';
import { forgetFile } from '../trap/file-look.ts';
import type { JournalLayout } from '../memory/journal.ts';
import type { Ledgers } from '../memory/ledger.ts';
import { groupPath, type Plan } from '../run/plan.ts';
import type { DeviceReport } from '../serve/report.ts';
import type { ServeOptions } from '../serve/served-device.ts';
import type { Turn } from '../memory/turn.ts';

const numbers = arch.syscalls;
const PATH_MAX = 4096;
const CONTAINER = '/dev/vfio/vfio';

/** The memory of emulated devices: the journal, and the files of each. */
export interface EmulationMemory {
  readonly layout: JournalLayout;
  readonly journal: Uint8Array;
  readonly ledgers: Ledgers;
  readonly filesOf: (device: number) => DeviceFiles;
  /** Without it, all drivers have data fds as those without poll. */
  readonly storeOf?: (device: number) => FdStore;
}

/** Whole devices that are not there, with their groups and containers: for machines without hardware. */
export class Emulation implements Devices {
  readonly #devices: readonly EmulatedDevice[];
  /** The devices that do DMA. */
  readonly #working: readonly { readonly dma: EmulatedDma; readonly place: number }[];
  readonly #nodes: VfioNodes;
  readonly #groupPaths: readonly string[];
  readonly #paths: ReadonlyMap<string, number>;
  readonly #deviceInodes: readonly number[];
  readonly #recorder: AccessRecorder | undefined;

  constructor(plan: Plan, { layout, journal, ledgers, filesOf, storeOf }: EmulationMemory, options: ServeOptions) {
    const processes = new MappedProcesses();
    this.#recorder = options.recorder;
    this.#devices = plan.devices.map((device, n) =>
      emulatedDevice(
        device,
        n,
        { ledger: layout.deviceLedger(journal, ledgers, n), files: filesOf(n), dataFdStore: storeOf?.(n), processes },
        options,
      ),
    );
    this.#working = this.#devices.flatMap(({ driver: { dma } }, place) => (dma === undefined ? [] : [{ dma, place }]));
    this.#deviceInodes = this.#devices.map(({ driver }) => driver.inode);
    const { mappings } = layout.parts(journal);
    const kernel = plan.devices.some(({ spec }) => spec.kernel === '7.1') ? '7.1' : '6.12';
    this.#nodes = new VfioNodes(this.#devices, layout.nodesLedger(journal, ledgers), mappings, sendFd, kernel);
    if (this.#nodes.ledger.isFresh) {
      this.#nodes.save();
      ledgers.commit([this.#nodes.ledger, ...this.#devices.map(({ ledger }) => ledger)]);
    }
    this.#groupPaths = plan.devices.map(groupPath);
    const groups = this.#groupPaths.map((path, n) => [path, n] as const);
    this.#paths = new Map([[CONTAINER, -1], ...groups]);
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

  work(now: number): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { dma, place } of this.#working) next = Math.min(next, dma.work(now, this.#nodes.reachOf(place)));
    return next;
  }

  ioctl(turn: Turn, command: number): number {
    const { call } = turn;
    const what = identify(this, call.tid, call.s32(0));
    if (what?.kind === 'group' || what?.kind === 'container') {
      this.#recorder?.onNode(what.kind, what.kind === 'group' ? (this.#groupPaths[what.group] ?? '') : CONTAINER);
      turn.touch(this.#nodes.ledger);
      return this.#nodes.ioctl(turn, command, what);
    }
    const device = what?.kind === 'device' ? this.#devices[what.place] : undefined;
    if (device === undefined) return CONTINUE;
    turn.touch(device.ledger);
    device.counted();
    device.usedBy(call.tid);
    try {
      const argument = new CallArgument(call);
      if (command === VFIO_DEVICE_FEATURE) this.#recorder?.asksFor(featureAsked(argument));
      return deviceRequest(argument, command, device, device.driver.regions, (resuming, tell) =>
        device.openDataFd(turn, resuming, tell),
      );
    } finally {
      device.leave();
    }
  }

  open(turn: Turn): number {
    const { call } = turn;
    const pathArgument = call.nr === numbers.openat ? 1 : 0;
    const path = pathOf(call, pathArgument);
    const node = path === undefined ? undefined : this.#paths.get(path);
    if (node === undefined) return CONTINUE;
    const closeOnExec = (call.u32(pathArgument + 1) & O_CLOEXEC) !== 0;
    this.#recorder?.onNode(node < 0 ? 'container' : 'group', path ?? '');
    turn.touch(this.#nodes.ledger);
    return node < 0 ? this.#nodes.openContainer(turn, closeOnExec) : this.#nodes.openGroup(turn, node, closeOnExec);
  }
}

/** Answers a call with a descriptor of the target's. What the call has changed counts before the target sees it. */
function sendFd(turn: Turn, fd: number, closeOnExec: boolean): void {
  turn.settle();
  forgetFile();
  const result = turn.answers.addFd(turn.call.id, fd, { send: true, closeOnExec: closeOnExec ? O_CLOEXEC : 0 });
  if (result >= 0 || failedWith(result, 'ENOENT')) return; // ENOENT: the target is gone
  throw refuse(errnoNameOrEio(-result), 'the target takes no descriptor');
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
