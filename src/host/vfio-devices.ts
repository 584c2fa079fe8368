import { Host } from './host.ts';

/** A device that a VFIO driver is bound to, as sysfs has it. */
export interface VfioDevice {
  /** On its bus: a PCI address, the UUID of a mediated device. */
  readonly name: string;
  readonly bus: string | undefined;
  readonly driver: string | undefined;
  /** The name of its group's node, `26` or `noiommu-0`; `undefined` if the kernel has no groups (CONFIG_VFIO_GROUP). */
  readonly group: string | undefined;
  /** Its name among VFIO's devices, e.g. `vfio0` (Linux 6.1). It is a node too if the kernel has CONFIG_VFIO_DEVICE_CDEV. */
  readonly vfio: string | undefined;
}

const GROUPS = '/sys/class/vfio';
const DEVICES = '/sys/class/vfio-dev';

/** All VFIO devices of the host, group by group. */
export function vfioDevices(host: Host): VfioDevice[] {
  const grouped = host.names(GROUPS).flatMap((group) => devicesOfGroup(host, group));
  const known = new Set(grouped.map(({ vfio }) => vfio));
  const others = host
    .names(DEVICES)
    .filter((vfio) => !known.has(vfio))
    .flatMap((vfio) => {
      const name = host.linked(`${DEVICES}/${vfio}/device`);
      return name === undefined ? [] : [described(host, `${DEVICES}/${vfio}/device`, name)];
    });
  return [...grouped, ...others];
}

/** Those of one group, by the name of its node. */
export function devicesOfGroup(host: Host, group: string): VfioDevice[] {
  const directory = `/sys/kernel/iommu_groups/${group.replace(/^noiommu-/, '')}/devices`;
  return host
    .names(directory)
    .map((name) => described(host, `${directory}/${name}`, name))
    .filter((device) => isVfio(host, device));
}

/** A device of a bus, whatever its driver; `undefined` if there is none. */
export function deviceOnBus(host: Host, bus: string, name: string): VfioDevice | undefined {
  const directory = `/sys/bus/${bus}/devices`;
  return host.has(`${directory}/${name}`) ? described(host, `${directory}/${name}`, name) : undefined;
}

function described(host: Host, path: string, name: string): VfioDevice {
  const number = host.linked(`${path}/iommu_group`);
  const groups = host.names(GROUPS);
  return {
    name,
    bus: host.linked(`${path}/subsystem`),
    driver: host.linked(`${path}/driver`),
    group: groups.find((group) => group.replace(/^noiommu-/, '') === number),
    vfio: host.names(`${path}/vfio-dev`)[0],
  };
}

/**
 * Whether a VFIO driver is bound to the device. From Linux 6.1 on sysfs says so. Before, the driver's name does: those for PCI and
 * platform devices have VFIO in it, and a mediated device has no other drivers.
 */
export function isVfio(host: Host, { bus, driver, vfio }: VfioDevice): boolean {
  if (vfio !== undefined) return true;
  if (host.has(DEVICES) || driver === undefined) return false;
  return bus === 'mdev' || driver.includes('vfio');
}
