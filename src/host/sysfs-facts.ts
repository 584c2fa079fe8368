import { readFileSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What sysfs tells about a device: each as far as it is there. */
export interface SysfsFacts {
  /** The directory, e.g. /sys/bus/pci/devices/0000:01:00.0. */
  readonly path?: string;
  /** `pci`, `mdev`, `platform`, ... */
  readonly bus?: string;
  /** The kernel driver that the device is bound to. */
  readonly driver?: string;
  /** What the device is, in the words by which drivers are found, e.g. pci:v00008086d00004941sv... */
  readonly modalias?: string;
  /** Of a mediated device: its type's id, and the type's name in words. */
  readonly mdevType?: string;
  readonly mdevTypeName?: string;
}

/** Looks for a device by its name on a bus (`0000:01:00.0`, a UUID), or by that of its own node (`vfio0`). */
export function sysfsFacts(name: string, root = '/sys'): SysfsFacts {
  if (name === '' || name.includes('/') || name.startsWith('.')) return {};
  const path = placeOf(name, root);
  if (path === undefined) return {};
  const type = attempt(() => basename(realpathSync(join(path, 'mdev_type'))));
  return defined({
    path,
    bus: attempt(() => basename(readlinkSync(join(path, 'subsystem')))) ?? busOf(path),
    driver: attempt(() => basename(readlinkSync(join(path, 'driver')))),
    modalias: attempt(() => readFileSync(join(path, 'modalias'), 'utf8').trim()),
    mdevType: type,
    mdevTypeName: attempt(() => readFileSync(join(path, 'mdev_type/name'), 'utf8').trim()),
  });
}

function placeOf(name: string, root: string): string | undefined {
  const node = attempt(() => realpathSync(join(root, 'class/vfio-dev', name, 'device')));
  if (node !== undefined) return node;
  const buses = attempt(() => readdirSync(join(root, 'bus'))) ?? [];
  const paths = buses.map((bus) => join(root, 'bus', bus, 'devices', name));
  return paths.find((path) => attempt(() => realpathSync(path)) !== undefined);
}

/** From /sys/bus/BUS/devices/NAME. */
function busOf(path: string): string | undefined {
  return /\/bus\/([^/]+)\/devices\/[^/]+$/.exec(path)?.[1];
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function defined(facts: Record<string, string | undefined>): SysfsFacts {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== ''));
}
