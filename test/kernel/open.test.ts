import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
} from '../../src/abi/vfio-ioctl.ts';
import { vfio_device_bind_iommufd, vfio_group_status } from '../../src/abi/vfio-device.ts';
import { openKernelDevice, type OpenCalls, type OpenedDevice } from '../../src/kernel/open.ts';
import { thrownBy } from '../support/errno.ts';
import { failed } from '../support/byte-port.ts';

/** The open device nodes, by descriptor; opening the ones in `refusing` fails. */
const nodes = new Map<number, string>();
const refusing = new Map<string, string>();
let next = 0;

type Answer = (fd: number, argument: Uint8Array | number) => number;
const answers = new Map<number, Answer>();

function answer(fd: number, request: number, argument: Uint8Array | number): number {
  const answered = answers.get(request)?.(fd, argument);
  if (answered === undefined) throw failed('ENOTTY');
  return answered;
}

/** A descriptor that is closed once, while it is open. */
function own(number: number): { readonly number: number; close(): void } {
  let isOpen = true;
  const close = (): void => {
    if (isOpen) expect(nodes.delete(number), `close of ${number}`).toBe(true);
    isOpen = false;
  };
  return { number, close };
}

const calls: OpenCalls = {
  open(path) {
    const code = refusing.get(path);
    if (code !== undefined) throw Object.assign(new Error(`${code}: open`), { code });
    next += 1;
    nodes.set(next, path);
    return own(next);
  },
  own,
  ioctl: (fd, _, request, argument) => answer(fd, request, argument),
  ioctlValue: (fd, _, request, argument) => answer(fd, request, argument ?? 0),
};

const open = (path: string): OpenedDevice => openKernelDevice(path, calls);

const GROUP = '/dev/vfio/26';
const DEVICE = `${GROUP}:0000:01:00.0`;
const CDEV = '/dev/vfio/devices/vfio3';

beforeEach(() => {
  refusing.clear();
  nodes.clear();
  next = 100;
  answers.clear();
  const group = (fd: number): void => expect(nodes.get(fd)).toBe(GROUP);
  const container = (fd: number): void => expect(nodes.get(fd)).toBe('/dev/vfio/vfio');
  answers.set(VFIO_GROUP_GET_STATUS, (fd, argument) => {
    group(fd);
    expect(vfio_group_status.decode(argument as Uint8Array).argsz).toBe(8);
    vfio_group_status.encode({ argsz: 8, flags: 1 }, argument as Uint8Array);
    return 0;
  });
  answers.set(VFIO_GET_API_VERSION, (fd) => {
    container(fd);
    return 0;
  });
  answers.set(VFIO_CHECK_EXTENSION, (_fd, type) => (type === 3 ? 1 : 0));
  answers.set(VFIO_GROUP_SET_CONTAINER, (fd, argument) => {
    group(fd);
    container(new DataView((argument as Uint8Array).buffer).getInt32(0, true));
    return 0;
  });
  answers.set(VFIO_SET_IOMMU, (fd, type) => {
    container(fd);
    expect(type).toBe(3);
    return 0;
  });
  answers.set(VFIO_GROUP_GET_DEVICE_FD, (fd, argument) => {
    group(fd);
    expect(Buffer.from(argument as Uint8Array).toString()).toBe('0000:01:00.0\0');
    nodes.set(200, 'the device');
    return 200;
  });
  answers.set(VFIO_DEVICE_BIND_IOMMUFD, (fd, argument) => {
    expect(nodes.get(fd)).toBe(CDEV);
    expect(nodes.get(vfio_device_bind_iommufd.decode(argument as Uint8Array).iommufd)).toBe('/dev/iommu');
    return 0;
  });
});

const refuse = (request: number, errno: Parameters<typeof failed>[0]): void => {
  answers.set(request, () => {
    throw failed(errno);
  });
};

describe('openKernelDevice', () => {
  it('opens a device in a group, and closes all that it took', () => {
    const device = open(DEVICE);
    expect([device.name, device.number]).toEqual(['0000:01:00.0', 200]);
    expect([...nodes.values()].toSorted()).toEqual(['/dev/vfio/26', '/dev/vfio/vfio', 'the device']);
    device.close();
    device.close();
    expect(nodes.size).toBe(0);
  });

  it('opens a node of a device with an iommufd', () => {
    {
      using device = open(CDEV);
      expect([device.name, nodes.get(device.number)]).toEqual(['vfio3', CDEV]);
      expect([...nodes.values()].toSorted()).toEqual(['/dev/iommu', CDEV]);
    }
    expect(nodes.size).toBe(0);
  });

  it.each([
    ['EACCES', 'permission denied'],
    ['EPERM', 'permission denied'],
    ['EBUSY', 'is in use by another process'],
    ['ENOENT', 'does not exist; is the device bound to a vfio driver?'],
    ['ENXIO', 'ENXIO'],
  ])('tells %s of a node in words', (code, words) => {
    refusing.set(GROUP, code);
    expect(thrownBy(() => open(DEVICE))).toMatchObject({
      code: 'ERR_DEVICE',
      errno: code,
      message: `${GROUP}: ${words}`,
    });
    for (const path of ['/dev/vfio/vfio', '/dev/iommu', CDEV]) {
      refusing.clear();
      refusing.set(path, code);
      expect(thrownBy(() => open(path === '/dev/vfio/vfio' ? DEVICE : CDEV)).errno).toBe(code);
      expect(nodes.size, 'left open').toBe(0);
    }
  });

  it.each<[string, () => void, object]>([
    [
      'a group that is not viable',
      () =>
        answers.set(VFIO_GROUP_GET_STATUS, (_fd, argument) => {
          vfio_group_status.encode({ argsz: 8, flags: 0 }, argument as Uint8Array);
          return 0;
        }),
      { errno: 'EPERM', message: expect.stringContaining('not viable') as string },
    ],
    [
      'a group in use',
      () => refuse(VFIO_GROUP_SET_CONTAINER, 'EINVAL'),
      { errno: 'EBUSY', message: `${GROUP}: is in use: it has a container already` },
    ],
    [
      'another API version',
      () => answers.set(VFIO_GET_API_VERSION, () => 1),
      { code: 'ERR_KERNEL_FEATURE', message: '/dev/vfio/vfio: API version 1, not 0' },
    ],
    [
      'no type 1 IOMMU',
      () => answers.set(VFIO_CHECK_EXTENSION, () => 0),
      { code: 'ERR_KERNEL_FEATURE', message: expect.stringContaining('vfio_iommu_type1') as string },
    ],
    [
      'a device that is not in the group',
      () => refuse(VFIO_GROUP_GET_DEVICE_FD, 'ENODEV'),
      { errno: 'ENODEV', message: `${GROUP}: has no device 0000:01:00.0` },
    ],
    ['a device in use', () => refuse(VFIO_GROUP_GET_DEVICE_FD, 'EBUSY'), { code: 'ERR_SYSCALL', errno: 'EBUSY' }],
    [
      'no permission for the container',
      () => refuse(VFIO_GROUP_SET_CONTAINER, 'EPERM'),
      { code: 'ERR_SYSCALL', errno: 'EPERM' },
    ],
    ['no permission for the IOMMU', () => refuse(VFIO_SET_IOMMU, 'EPERM'), { code: 'ERR_SYSCALL', errno: 'EPERM' }],
  ])('refuses %s, and leaves nothing open', (_what, prepare, error) => {
    prepare();
    expect(thrownBy(() => open(DEVICE))).toMatchObject(error);
    expect(nodes.size).toBe(0);
  });

  it.each(['EINVAL', 'EBUSY'] as const)(
    'says that a device is in use which cannot be bound to an iommufd: %s',
    (errno) => {
      refuse(VFIO_DEVICE_BIND_IOMMUFD, errno);
      const message = `${CDEV}: is in use by another process`;
      expect(thrownBy(() => open(CDEV))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EBUSY', message });
      expect(nodes.size).toBe(0);
    },
  );

  it('hands on why a device cannot be bound to an iommufd otherwise', () => {
    refuse(VFIO_DEVICE_BIND_IOMMUFD, 'EPERM');
    expect(thrownBy(() => open(CDEV))).toMatchObject({ code: 'ERR_SYSCALL', errno: 'EPERM' });
    expect(nodes.size).toBe(0);
  });

  it('needs a device besides the group', () => {
    expect(thrownBy(() => open(GROUP)).code).toBe('ERR_ARGUMENT');
  });
});
