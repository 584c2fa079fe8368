import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
} from '../../abi/vfio.ts';
import { hasErrno } from '../../error.ts';
import { driverSpeaking, type DriverName } from '../../sim/drivers.ts';
import { isDraft } from '../../v1/drafts/device.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { describeDevice } from './describe-device.ts';
import { bridgedDevice, type BridgedDevice, type BridgeOptions } from './bridged-driver.ts';
import { bridgedFacts } from './bridged-facts.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import { CallArgument } from '../trap/call-argument.ts';
import { Containers } from './containers.ts';
import type { Descriptor } from '../serve/descriptor.ts';
import type { Devices } from '../serve/devices.ts';
import { addedRegionInfo, infoWithAddedRegion, regionAskedFor } from '../../vfio/server/added-region.ts';
import { deviceFeature, isLogFeature, isMigrationFeature } from '../../vfio/server/feature-request.ts';
import type { MigrationRegion } from '../../vfio/server/migration-region.ts';
import type { Findings } from './findings.ts';
import type { Argument } from '../../vfio/argument.ts';
import { isHeld } from './held.ts';
import type { Ledger } from '../memory/ledger.ts';
import { cdevName, nameIn } from '../trap/kernel-names.ts';
import { messageOf } from '../run/log.ts';
import { BRIDGED } from '../run/plan.ts';
import type { DeviceReport } from '../serve/report.ts';
import { markPlace, placeOf } from '../trap/run-mark.ts';
import type { Turn } from '../memory/turn.ts';
import { featureAsked } from '../serve/request-names.ts';
import { regionOffset } from '../run/window.ts';

/** Names that were asked for and whose device has not been seen yet: how many are remembered. */
const MAX_NAMES = 64;

export interface BridgingOptions extends Omit<BridgeOptions, 'hasOthers'> {
  /** Is told what becomes of each device. */
  readonly findings: Findings;
  /** Is told of a device that the target has closed. */
  readonly gone: (report: DeviceReport) => void;
  /** What is known of containers; none if their dirty pages are not our business. */
  readonly containers: readonly Ledger[];
}

/**
 * The devices of the kernel that the target opens. A device is found when the target first asks what it is, and gets a place
 * if there is something to bridge; all others, and all calls that the bridge has nothing to do with, are left to the kernel.
 */
export class Bridging implements Devices {
  readonly #devices: (BridgedDevice | undefined)[];
  readonly #ledgers: readonly Ledger[];
  readonly #options: BridgingOptions & BridgeOptions;
  readonly #containers: Containers | undefined;
  /** The device that a thread has asked a group for, as the target named it. */
  readonly #names = new Map<number, string>();
  #unreachable = false;

  /** A ledger for each of the places that there are. */
  constructor(ledgers: readonly Ledger[], options: BridgingOptions) {
    this.#options = { ...options, hasOthers: () => this.#devices.filter((device) => device !== undefined).length > 1 };
    this.#ledgers = ledgers;
    this.#devices = ledgers.map((ledger, place) =>
      bridgedFacts(ledger).used === 1 ? bridgedDevice(place, ledger, this.#options) : undefined,
    );
    for (const device of this.#devices) device?.driver.inherit();
    const { containers } = options;
    if (containers.length === 0) return;
    this.#containers = new Containers(containers, { ...options, device: (place) => this.#devices[place] });
  }

  at(place: number): BridgedDevice | undefined {
    return this.#devices[place];
  }

  /** Of data fds alone: a device of the kernel is told by its mark. */
  whose(inode: number): Descriptor | undefined {
    const place = this.#devices.findIndex((device) => device?.dataFds?.file === inode);
    return place >= 0 ? { kind: 'data fd', place } : undefined;
  }

  reports(): DeviceReport[] {
    return this.#devices.flatMap((device) => (device === undefined ? [] : [device.report()]));
  }

  rehearsalDrivers(): DriverName[] {
    const devices = this.#devices.filter((device) => device !== undefined);
    if (devices.some(({ hasLeftRunning }) => hasLeftRunning)) return [];
    const protocols = new Set(devices.map(({ driver }) => driver.backend.protocol));
    return [...protocols].map(driverSpeaking);
  }

  open(): number {
    return CONTINUE;
  }

  /** The kernel's devices do what they do by themselves. */
  work(): number {
    return Number.POSITIVE_INFINITY;
  }

  ioctl(turn: Turn, command: number): number {
    switch (command) {
      case VFIO_GROUP_GET_DEVICE_FD:
        this.#noteName(turn);
        return CONTINUE;
      case VFIO_GROUP_SET_CONTAINER:
        this.#containers?.joins(turn);
        return CONTINUE;
      case VFIO_DEVICE_GET_INFO:
        return this.#on(turn, true, (device) => this.#getInfo(new CallArgument(turn.call), device));
      case VFIO_DEVICE_GET_REGION_INFO:
        return this.#on(turn, false, (device) => this.#getRegionInfo(new CallArgument(turn.call), device));
      case VFIO_DEVICE_RESET:
        return this.#on(turn, false, (device) => {
          this.#containers?.reset(turn, device.driver.place);
          device.reset();
          return 0;
        });
      case VFIO_DEVICE_FEATURE:
        return this.#on(turn, true, (device) => this.#feature(turn, device));
      default:
        return CONTINUE;
    }
  }

  #noteName(turn: Turn): void {
    const { call } = turn;
    const name = nameIn(call);
    this.#containers?.asked(turn, name);
    if (name === undefined) return;
    if (this.#names.size >= MAX_NAMES) this.#names.clear();
    this.#names.set(call.tid, name);
  }

  /** Serves a call on a device that is bridged or, with `find`, is to be; calls on others are the kernel's. */
  #on(turn: Turn, find: boolean, serve: (device: BridgedDevice) => number): number {
    const { call } = turn;
    const fd = this.#duplicate(call);
    if (fd === undefined) return CONTINUE;
    const place = placeOf(fd.number);
    if (place >= BRIDGED) return this.#onContainer(turn, fd);
    let device = this.#devices[place];
    if (device === undefined && find) device = this.#find(turn, fd);
    if (device === undefined) {
      fd.close();
      return CONTINUE;
    }
    device.driver.lend(call.tid, call.s32(0), fd);
    try {
      turn.touch(device.ledger);
      device.counted();
      return serve(device);
    } finally {
      device.driver.leave();
    }
  }

  /** This ioctl's number is one of containers too, if it is the one for features. */
  #onContainer(turn: Turn, fd: OwnedFd): number {
    using container = fd;
    this.#options.recorder?.onNode('container', '/dev/vfio/vfio');
    const isDirtyPages = turn.call.u32(1) === VFIO_IOMMU_DIRTY_PAGES;
    return isDirtyPages ? (this.#containers?.dirtyPages(turn, container) ?? CONTINUE) : CONTINUE;
  }

  /**
   * Takes the caller's descriptor. If that is not allowed, it may be a device that is bridged, and the call fails; as long as there
   * is none, the call is the kernel's.
   */
  #duplicate(call: Call): OwnedFd | undefined {
    try {
      return this.#options.reach.duplicate(call.tid, call.s32(0));
    } catch (error) {
      if (!hasErrno(error, 'ESRCH') && !this.#unreachable) {
        this.#unreachable = true;
        this.#leaves(`devices of process ${call.tid} cannot be bridged: ${messageOf(error)}`);
      }
      if (this.#devices.some((device) => device !== undefined)) throw error;
      return undefined;
    }
  }

  /** Gives a device its place, if it is one and there is something to do for it. */
  #find(turn: Turn, fd: OwnedFd): BridgedDevice | undefined {
    const { call } = turn;
    const cdev = cdevName(fd.number);
    if (cdev === undefined && !this.#options.reach.isGroupDevice(fd.number)) return undefined;
    call.check(); // whose descriptor that is
    const known = cdev ?? this.#names.get(call.tid);
    const name = known ?? `descriptor ${call.s32(0)}`;
    this.#names.delete(call.tid);
    this.#dropClosed(turn);
    const place = this.#devices.indexOf(undefined);
    const ledger = this.#ledgers[place];
    if (ledger === undefined) {
      this.#leaves(`${name}: is not bridged: ${BRIDGED} devices are the limit`);
      return undefined;
    }
    turn.touch(ledger);
    try {
      const reason = describeDevice(fd, name, ledger, this.#options);
      if (reason !== undefined) {
        this.#options.findings.leftAlone(known, reason);
        if (known !== undefined) this.#containers?.found(turn, known);
        return undefined;
      }
      const device = bridgedDevice(place, ledger, this.#options);
      device.driver.lend(call.tid, call.s32(0), fd);
      device.usedBy(call.tid);
      this.#options.recorder?.opened(name, device.driver.backend.protocol, call.tid);
      device.driver.begin(this.#options.warn);
      if (known !== undefined) this.#containers?.found(turn, known, place);
      turn.settle();
      markPlace(fd.number, place); // last: what is marked has its place
      this.#devices[place] = device;
      this.#tellBridged(name, device);
      return device;
    } catch (error) {
      bridgedFacts(ledger).used = 0;
      turn.settle();
      this.#leaves(`${name}: is not bridged: ${messageOf(error)}`);
      return undefined;
    }
  }

  #tellBridged(name: string, { driver, region, v2 }: BridgedDevice): void {
    const { present, findings } = this.#options;
    const protocol = driver.backend.protocol === 'v2' ? 'v2' : 'v1';
    if (isDraft(present)) findings.bridgedToDraft(name, protocol, present);
    else findings.bridged(name, protocol, (protocol === 'v2' ? region : v2) !== undefined);
  }

  /** Says why a device is left to the kernel that was to be bridged. */
  #leaves(message: string): void {
    this.#options.warn(message);
    this.#options.findings.note(message);
  }

  /** Forgets devices that the target has closed, when a new one comes. */
  #dropClosed(turn: Turn): void {
    for (const [place, device] of this.#devices.entries()) {
      if (device === undefined || isHeld(this.#options.reach, device.driver.facts, place)) continue;
      this.#options.gone(device.report());
      this.#options.recorder?.closed(device.name);
      device.driver.fdStore.clear();
      device.driver.facts.used = 0;
      turn.touch(device.ledger);
      this.#containers?.closed(turn, place);
      this.#options.peers?.leave(device.ledger);
      this.#devices[place] = undefined;
    }
  }

  #getInfo(argument: Argument, { region, driver }: BridgedDevice): number {
    return region !== undefined && infoWithAddedRegion(argument, driver.port) ? 0 : CONTINUE;
  }

  #getRegionInfo(argument: Argument, { name, region, driver }: BridgedDevice): number {
    const { facts, place } = driver;
    const { present, findings } = this.#options;
    const index = regionAskedFor(argument);
    if (index === 0) return CONTINUE; // a BAR; none of the two is there
    const isOwn = index === facts.region;
    if (index !== facts.added && !isOwn) return CONTINUE;
    const generation = isDraft(present) && !isOwn ? present : 'v1';
    findings.uses(name, generation);
    if (region === undefined || isOwn) return CONTINUE;
    const { dataSection } = region;
    const added: MigrationRegion = { generation, offset: regionOffset(place), dataSection, mappable: true };
    return addedRegionInfo(argument, facts.added, added) ? 0 : CONTINUE;
  }

  #feature(turn: Turn, device: BridgedDevice): number {
    const { v2 } = device;
    const argument = new CallArgument(turn.call);
    if (isLogFeature(argument)) this.#containers?.readsLogs(turn, device.driver.place);
    if (!isMigrationFeature(argument)) return CONTINUE;
    this.#options.findings.uses(device.name, 'v2');
    if (v2 === undefined) return CONTINUE;
    device.usedBy(turn.call.tid);
    this.#options.recorder?.asksFor(featureAsked(argument));
    return deviceFeature(argument, v2, (resuming, tell) => device.openDataFd(turn, resuming, tell));
  }
}
