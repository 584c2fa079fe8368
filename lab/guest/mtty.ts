import { randomUUID } from 'node:crypto';
import { chownSync, existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** One serial port, or two (samples/vfio-mdev/mtty.c). */
export type MttyType = 'mtty-1' | 'mtty-2';

const TYPES = '/sys/class/mdev_bus/mtty/mdev_supported_types';
const DEVICES = '/sys/bus/mdev/devices';

/** A mediated device of the kernel's driver mtty. */
export class Mtty {
  /** Its name in its group, for VFIO_GROUP_GET_DEVICE_FD. */
  readonly uuid: string;
  readonly ports: 1 | 2;
  /** For `sysfsdev=`. */
  readonly sysfs: string;
  /** `/dev/vfio/N`. */
  readonly group: string;

  private constructor(uuid: string, ports: 1 | 2) {
    this.uuid = uuid;
    this.ports = ports;
    this.sysfs = join(DEVICES, uuid);
    this.group = `/dev/vfio/${basename(readlinkSync(join(this.sysfs, 'iommu_group')))}`;
    if (!existsSync(this.group)) throw new Error(`mtty ${uuid}: no ${this.group}`);
  }

  /**
   * Creates a device, whose group belongs to `uid`. Needs root. Whoever wants to be sure of its state takes a new one: mtty keeps
   * its migration state when it is closed.
   */
  static create(type: MttyType = 'mtty-2', uid = 0): Mtty {
    const uuid = randomUUID();
    writeFileSync(join(TYPES, type, 'create'), uuid);
    const mtty = new Mtty(uuid, type === 'mtty-1' ? 1 : 2);
    chownSync(mtty.group, uid, uid);
    return mtty;
  }

  /** Removes the device. Needs root; waits in the kernel, uninterruptibly, while somebody has it open. */
  remove(): void {
    writeFileSync(join(this.sysfs, 'remove'), '1');
  }

  /** How many more devices of a type there may be. */
  static available(type: MttyType): number {
    return Number(readFileSync(join(TYPES, type, 'available_instances'), 'utf8'));
  }

  /** The names of all devices. */
  static all(): Set<string> {
    return new Set(readdirSync(DEVICES));
  }

  /** Removes all devices but those named: a check those it made, the runner all after each job. */
  static removeAllBut(kept: ReadonlySet<string> = new Set()): void {
    for (const uuid of Mtty.all()) if (!kept.has(uuid)) writeFileSync(join(DEVICES, uuid, 'remove'), '1');
  }
}
