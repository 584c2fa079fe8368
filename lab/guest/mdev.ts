import { randomUUID } from 'node:crypto';
import { chownSync, existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const DEVICES = '/sys/bus/mdev/devices';
const typesOf = (driver: string): string => `/sys/class/mdev_bus/${driver}/mdev_supported_types`;

/** A mediated device of a driver of the kernel. */
export class Mdev {
  /** Its name in its group, for VFIO_GROUP_GET_DEVICE_FD. */
  readonly uuid: string;
  /** For `sysfsdev=`. */
  readonly sysfs: string;
  /** `/dev/vfio/N`. */
  readonly group: string;

  /** Creates a device, whose group belongs to `uid`. Needs root. */
  constructor(driver: string, type: string, uid = 0) {
    this.uuid = randomUUID();
    writeFileSync(join(typesOf(driver), type, 'create'), this.uuid);
    this.sysfs = join(DEVICES, this.uuid);
    this.group = `/dev/vfio/${basename(readlinkSync(join(this.sysfs, 'iommu_group')))}`;
    if (!existsSync(this.group)) throw new Error(`${driver} ${this.uuid}: no ${this.group}`);
    chownSync(this.group, uid, uid);
  }

  /** `/dev/vfio/devices/vfioN`, its own node, which it has in a guest with iommufd. */
  get cdev(): string {
    const [name, ...more] = readdirSync(join(this.sysfs, 'vfio-dev'));
    if (name === undefined || more.length > 0) throw new Error(`${this.sysfs}: not exactly one vfio-dev`);
    return `/dev/vfio/devices/${name}`;
  }

  /** Removes the device. Needs root; waits in the kernel, uninterruptibly, while somebody has it open. */
  remove(): void {
    writeFileSync(join(this.sysfs, 'remove'), '1');
  }

  /** How many more devices of a type there may be. */
  protected static availableOf(driver: string, type: string): number {
    return Number(readFileSync(join(typesOf(driver), type, 'available_instances'), 'utf8'));
  }

  /** The names of all devices; none if the kernel has not loaded mdev. */
  static all(): Set<string> {
    return new Set(existsSync(DEVICES) ? readdirSync(DEVICES) : []);
  }

  /** Removes all devices but those named: a check those it made, the runner all after each job. */
  static removeAllBut(kept: ReadonlySet<string> = new Set()): void {
    for (const uuid of Mdev.all()) if (!kept.has(uuid)) writeFileSync(join(DEVICES, uuid, 'remove'), '1');
  }
}
