import { describe, expect, it } from 'vitest';
import { devicePath, hostName } from '../../src/host/device-path.ts';
import { Host } from '../../src/host/host.ts';
import { vfioDevices } from '../../src/host/vfio-devices.ts';
import { thrownBy } from '../support/errno.ts';
import { device, group, hostWith, type Entry } from '../support/host-tree.ts';

const UUID = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const [A, B, BRIDGE] = ['0000:01:00.0', '0000:01:00.1', '0000:00:01.0'];

/** Linux 6.1 and later: sysfs says which devices are VFIO's. */
const NEW = {
  ...group('26'),
  ...group('3'),
  ...device(A, { driver: 'qat_vfio_pci', group: '26', vfio: 'vfio1' }),
  ...device(BRIDGE, { driver: 'pcieport', group: '26' }),
  ...device(UUID, { bus: 'mdev', driver: 'mtty', group: '3', vfio: 'vfio0' }),
  ...device('0000:02:00.0', { driver: 'mlx5_core', group: '30' }),
  ...device('0000:03:00.0', { group: '31' }),
};

/** Before: by the driver's name. */
const OLD = {
  ...group('7'),
  ...group('8'),
  ...device(A, { driver: 'vfio-pci', group: '7' }),
  ...device(B, { driver: 'hisi_sec2', group: '7' }),
  ...device(UUID, { bus: 'mdev', driver: 'nvidia', group: '8' }),
};

describe('vfioDevices', () => {
  it('finds those that VFIO says it has, and what each is', () => {
    expect(vfioDevices(hostWith(NEW))).toEqual([
      { name: UUID, bus: 'mdev', driver: 'mtty', group: '3', vfio: 'vfio0' },
      { name: A, bus: 'pci', driver: 'qat_vfio_pci', group: '26', vfio: 'vfio1' },
    ]);
  });

  it('finds those of an older kernel by their drivers', () => {
    expect(vfioDevices(hostWith(OLD)).map(({ name }) => name)).toEqual([A, UUID]);
  });

  it('finds those of a kernel without groups', () => {
    const host = hostWith(device(A, { driver: 'mlx5_vfio_pci', group: '26', vfio: 'vfio4' }));
    expect(vfioDevices(host)).toEqual([
      { name: A, bus: 'pci', driver: 'mlx5_vfio_pci', group: undefined, vfio: 'vfio4' },
    ]);
  });

  it('knows a group without an IOMMU by its node', () => {
    const host = hostWith({
      ...group('noiommu-0'),
      ...device(A, { driver: 'vfio-pci', group: 'noiommu-0', vfio: 'vfio0' }),
    });
    expect(vfioDevices(host)).toMatchObject([{ name: A, group: 'noiommu-0' }]);
  });

  it('finds none where there is none', () => expect(vfioDevices(hostWith({}))).toEqual([]));
});

/** The path that a name means on a host with these files. */
function pathOn(host: Host, name: string): string {
  const parsed = hostName(name);
  if (parsed === undefined) throw new Error(`${name} is no name`);
  return devicePath(host, parsed);
}

describe('devicePath', () => {
  const cdev = { '/dev/vfio/devices/vfio1': '' };
  it.each<[name: string, entries: Record<string, Entry>, path: string]>([
    [A, NEW, `/dev/vfio/26:${A}`],
    ['01:00.0', NEW, `/dev/vfio/26:${A}`],
    ['/dev/vfio/26', NEW, `/dev/vfio/26:${A}`],
    ['/dev/vfio/3', NEW, `/dev/vfio/3:${UUID}`],
    [UUID, NEW, `/dev/vfio/3:${UUID}`],
    [A, OLD, `/dev/vfio/7:${A}`],
    ['/dev/vfio/7', OLD, `/dev/vfio/7:${A}`],
    [UUID, OLD, `/dev/vfio/8:${UUID}`],
    [A, { ...NEW, ...cdev }, `/dev/vfio/26:${A}`],
    [A, { ...device(A, { driver: 'vfio-pci', group: '26', vfio: 'vfio1' }), ...cdev }, '/dev/vfio/devices/vfio1'],
  ])('of %s', (name, entries, path) => {
    expect(pathOn(hostWith(entries), name)).toBe(path);
  });

  it.each<[name: string, entries: Record<string, Entry>, message: string]>([
    ['0000:09:00.0', NEW, '0000:09:00.0: this host has no such PCI device'],
    [UUID, {}, `${UUID}: this host has no such mediated device`],
    ['02:00.0', NEW, '0000:02:00.0: is bound to mlx5_core, which is no VFIO driver; docs/kernel-devices.md says how'],
    ['03:00.0', NEW, '0000:03:00.0: is bound to no driver; docs/kernel-devices.md says how to bind one'],
    ['01:00.1', OLD, '0000:01:00.1: is bound to hisi_sec2, which is no VFIO driver;'],
    ['/dev/vfio/99', NEW, '/dev/vfio/99: no VFIO device is known to be in this group'],
    [
      A,
      device(A, { driver: 'vfio-pci', group: '26', vfio: 'vfio1' }),
      `${A}: neither its group nor the device itself has a node in /dev/vfio`,
    ],
  ])('of %s is none, with the reason', (name, entries, message) => {
    const { code, errno, message: told } = thrownBy(() => pathOn(hostWith(entries), name));
    expect([code, errno, told.slice(0, message.length)]).toEqual(['ERR_DEVICE', 'ENODEV', message]);
  });

  it('of a group with several devices is none: they are listed', () => {
    const host = hostWith({ ...NEW, ...device(B, { driver: 'vfio-pci', group: '26', vfio: 'vfio2' }) });
    const { code, message } = thrownBy(() => pathOn(host, '/dev/vfio/26'));
    expect([code, message]).toEqual([
      'ERR_ARGUMENT',
      `/dev/vfio/26: has several devices, give one of them: ${A}, ${B}`,
    ]);
  });
});
