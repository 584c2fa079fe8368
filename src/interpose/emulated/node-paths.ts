import { groupPath, type Plan } from '../run/plan.ts';
import { existsSync } from 'node:fs';
import { CDEV_MAJOR, cdevPath } from '../run/plan-device.ts';

/** A node in /dev, or a directory of such: what it is, of which device if it is one's, and which character device it shows. */
export interface Node {
  readonly kind: 'container' | 'iommufd' | 'group' | 'cdev' | 'directory';
  readonly path: string;
  /** -1 for none. */
  readonly place: number;
  readonly major: number;
  readonly minor: number;
  /** Permission bits. */
  readonly mode: number;
}

/** As the kernel gives them out: 10 is that of miscellaneous devices, with VFIO's minor (linux/miscdevice.h); the others are found when needed. */
const MISC_MAJOR = 10;
const VFIO_MINOR = 196;
const IOMMU_MINOR = 250;
const GROUP_MAJOR = 510;

export const CONTAINER: Node = {
  kind: 'container',
  path: '/dev/vfio/vfio',
  place: -1,
  major: MISC_MAJOR,
  minor: VFIO_MINOR,
  mode: 0o666,
};

export const IOMMUFD: Node = {
  kind: 'iommufd',
  path: '/dev/iommu',
  place: -1,
  major: MISC_MAJOR,
  minor: IOMMU_MINOR,
  mode: 0o660,
};

/** The nodes of a run, in their order: those of all devices, then each device's group and its own. */
export function nodesOf({ devices, iommufd = false }: Pick<Plan, 'devices' | 'iommufd'>): Node[] {
  const own = devices.flatMap((device, place): Node[] => [
    { kind: 'group', path: groupPath(device), place, major: GROUP_MAJOR, minor: place, mode: 0o600 },
    { kind: 'cdev', path: cdevPath(place), place, major: CDEV_MAJOR, minor: place, mode: 0o600 },
  ]);
  const all = [CONTAINER, IOMMUFD, ...own];
  return iommufd ? all : all.filter(({ kind }) => kind === 'container' || kind === 'group');
}

/** The directories that the nodes of a run are in, for who lists them, where the host has none. */
export function directoriesOf({ iommufd = false, lists = false }: Pick<Plan, 'iommufd' | 'lists'>): Node[] {
  const paths = iommufd ? ['/dev/vfio', '/dev/vfio/devices'] : ['/dev/vfio'];
  const missing = lists ? paths.filter((path) => !existsSync(path)) : [];
  return missing.map((path) => ({ kind: 'directory', path, place: -1, major: 0, minor: 0, mode: 0o755 }));
}
