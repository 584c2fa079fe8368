import { accessSync, constants } from 'node:fs';
import { ShimError } from '../error.ts';
import type { Host } from './host.ts';
import { deviceOnBus, devicesOfGroup, isVfio, type VfioDevice } from './vfio-devices.ts';

/** A device by a name that this host knows, and what has it. */
export interface HostName {
  readonly by: 'group' | 'pci' | 'mdev';
  /** The group node's name, a whole PCI address, or a UUID. */
  readonly name: string;
}

const GROUP = /^\/dev\/vfio\/((?:noiommu-)?\d+)$/;
const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$/;
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/** A device's name as lspci, sysfs or a user writes it; `undefined` if it is none. */
export function hostName(text: string): HostName | undefined {
  const group = GROUP.exec(text)?.[1];
  if (group !== undefined) return { by: 'group', name: group };
  const name = text.toLowerCase();
  if (UUID.test(name)) return { by: 'mdev', name };
  const [, domain = '0000', address] = ADDRESS.exec(name) ?? [];
  return address === undefined ? undefined : { by: 'pci', name: `${domain}:${address}` };
}

/**
 * The path by which a device is opened: `/dev/vfio/26:0000:01:00.0` or `/dev/vfio/devices/vfio0`. Throws `ERR_DEVICE` (`ENODEV`) if
 * there is no such device, or no VFIO driver has it, and `ERR_ARGUMENT` if a group has several.
 */
export function devicePath(host: Host, { by, name }: HostName): string {
  if (by === 'group') return pathOf(host, onlyDevice(host, name));
  const device = deviceOnBus(host, by, name);
  if (device === undefined) {
    throw absent(`${name}: this host has no such ${by === 'pci' ? 'PCI' : 'mediated'} device`);
  }
  if (isVfio(host, device)) return pathOf(host, device);
  const bound = device.driver === undefined ? 'to no driver' : `to ${device.driver}, which is no VFIO driver`;
  throw absent(`${name}: is bound ${bound}; docs/kernel-devices.md says how to bind one`);
}

function onlyDevice(host: Host, group: string): VfioDevice {
  const [device, ...others] = devicesOfGroup(host, group);
  if (device === undefined) throw absent(`/dev/vfio/${group}: no VFIO device is known to be in this group`);
  if (others.length === 0) return device;
  const names = [device, ...others].map((each) => each.name).join(', ');
  throw new ShimError('ERR_ARGUMENT', `/dev/vfio/${group}: has several devices, give one of them: ${names}`);
}

/** By its group, as every VMM can; by its own node if it has no other, or if that is the one that this user may open. */
export function pathOf(host: Host, { name, group, vfio }: VfioDevice): string {
  const nodes = [
    ...(group === undefined ? [] : [{ node: `/dev/vfio/${group}`, path: `/dev/vfio/${group}:${name}` }]),
    ...(vfio === undefined ? [] : [{ node: `/dev/vfio/devices/${vfio}`, path: `/dev/vfio/devices/${vfio}` }]),
  ].filter(({ node }) => host.has(node));
  const chosen = nodes.find(({ node }) => isOpen(host.at(node))) ?? nodes[0];
  if (chosen !== undefined) return chosen.path;
  throw absent(
    `${name}: neither its group nor the device itself has a node in /dev/vfio, as in a container without it`,
  );
}

/** Whether this user may open a node. It is not opened: a group lets one user in. */
export function isOpen(node: string): boolean {
  try {
    accessSync(node, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function absent(message: string): ShimError {
  return new ShimError('ERR_DEVICE', message, { errno: 'ENODEV' });
}
