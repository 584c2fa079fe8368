import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { ShimError } from '../../error.ts';
import { freshDirectory } from './fresh-directory.ts';
import { sysfsFiles } from './sysfs-device.ts';
import { groupPath, type Plan, type PlannedDevice } from '../run/plan.ts';
import { CDEV_MAJOR, cdevName, cdevPath, listedPath } from '../run/plan-device.ts';

/** The driver that the devices have. */
export const DRIVER = 'vfio-pci';
/** Where in the directory the driver and the groups are. */
export const driverPath: string = join('.drivers', DRIVER);
export const groupsPath = '.iommu_groups';

/** A device as the directory shows it: with its config space. */
export interface ShownDevice extends Pick<PlannedDevice, 'name' | 'group'> {
  /** The sizes of its BARs, by their numbers. */
  readonly bars: Readonly<Record<number, number>>;
  readonly config: Uint8Array;
  /** It has a node of its own, too. */
  readonly hasNode: boolean;
}

/**
 * Writes, for each device, a directory such as sysfs has one: `DIR/NAME` with the files of a PCI device, and links `driver` and
 * `iommu_group`, whose last parts are the driver's name and the group's number, and `vfio-dev/vfioN/dev` with the numbers of its own node. A
 * VMM looks at the last two only; programs that look for devices on the bus look at the others, and take whatever is in DIR, and does not
 * begin with a dot, for a device. Returns the absolute DIR and whether it is a fresh one of ours.
 */
export function writeSysfs(
  directory: string | undefined,
  devices: readonly ShownDevice[],
): { path: string; fresh: boolean } {
  if (directory === '') throw new ShimError('ERR_ARGUMENT', '--sysfs: the name of the directory is empty');
  try {
    const path = directory === undefined ? freshDirectory('vfio-shim-', '; or give --sysfs') : resolve(directory);
    makeDirectory(join(path, driverPath));
    listNode(path, '/dev/vfio/vfio');
    for (const [place, device] of devices.entries()) writeDevice(path, device, place);
    return { path, fresh: directory === undefined };
  } catch (error) {
    if (error instanceof ShimError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `--sysfs ${directory}: ${why}`, { cause: error });
  }
}

function writeDevice(path: string, { name, group, bars, config, hasNode }: ShownDevice, place: number): void {
  const groupDevices = join(groupsPath, String(group), 'devices');
  makeDirectory(join(path, groupDevices));
  makeDirectory(join(path, name));
  linkAnew(`../../../${name}`, join(path, groupDevices, name));
  linkAnew(join('..', groupsPath, String(group)), join(path, name, 'iommu_group'));
  linkAnew(join('..', driverPath), join(path, name, 'driver'));
  linkAnew(`../../${name}`, join(path, driverPath, name));
  for (const [file, contents] of Object.entries(sysfsFiles(name, config, bars)))
    writeAnew(Buffer.from(contents), join(path, name, file));
  listNode(path, groupPath({ group }));
  if (hasNode) listNode(path, cdevPath(place));
  const node = join(path, name, 'vfio-dev', cdevName(place));
  makeDirectory(node);
  if (hasNode) writeAnew(Buffer.from(`${CDEV_MAJOR}:${place}\n`), join(node, 'dev'));
}

/** Notes a node for who lists /dev/vfio: a link, as it is opened by that name alone. */
function listNode(path: string, node: string): void {
  const at = join(path, listedPath, relative('/dev', node));
  makeDirectory(dirname(at));
  linkAnew(node, at);
}

/** What an earlier run has written stays as it is: others may be reading it, and it may not be this user's. */
function writeAnew(contents: Uint8Array, path: string): void {
  if (existsSync(path) && readFileSync(path).equals(contents)) return;
  writeFileSync(path, contents);
}

/** Removes a fresh directory of ours. Keeper and supervisor both do so when they end: neither knows whether it is the last. */
export function removeSysfs({ sysfs }: Pick<Plan, 'sysfs'>): void {
  if (sysfs?.fresh !== true) return;
  try {
    rmSync(sysfs.path, { recursive: true, force: true });
  } catch {
    // another of us is at it, or what somebody put there stays
  }
}

/** As `mkdir -p`. Node's own never returns if a directory takes no entries (`/proc`). */
function makeDirectory(path: string): void {
  if (!existsSync(dirname(path))) makeDirectory(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
  }
}

function linkAnew(target: string, path: string): void {
  try {
    symlinkSync(target, path);
  } catch (error) {
    // of an earlier run with the same devices
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || readlinkSync(path) !== target) throw error;
  }
}
