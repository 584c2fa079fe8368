import { expect, it } from 'vitest';
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_info,
} from '../../../src/abi/vfio.ts';
import { duplicateFd } from '../../../src/sys/pidfd.ts';
import { V1 } from '../../../src/v1/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { BAR0_AT, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const GROUP = '/dev/vfio/9000';
const NAME = Buffer.from('0000:90:00.0\0');

/** drivers/vfio/group.c of Linux 6.12: vfio_group_fops_open, vfio_device_open_file, vfio_df_open. */
describeWithCompiler('an emulated group', () => {
  const start = useShimRuns();

  function puppet(): VfioPuppet {
    return new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: ['qat,size=64K'] })));
  }

  const close = async (user: VfioPuppet, fd: number): Promise<void> => {
    value(await user.puppet.call('close', [fd]));
  };
  const open = async (user: VfioPuppet): Promise<string> => (await user.open(GROUP)).errno;

  it('has one opener, wherever its descriptors are, and whatever becomes of the supervisor', async () => {
    const user = puppet();
    const group = value(await user.open(GROUP));
    expect(await open(user)).toBe('EBUSY');
    const copy = value(await user.puppet.call('dup', [group]));
    // another process has one too
    const elsewhere = duplicateFd(user.puppet.run.pid, group);
    await close(user, group);
    expect(await open(user), 'a duplicate').toBe('EBUSY');
    await close(user, copy);
    expect(await open(user), 'in another process').toBe('EBUSY');
    killHard(await user.puppet.run.supervisor());
    expect(await open(user), 'for the successor').toBe('EBUSY');
    elsewhere?.close();
    expect(await open(user)).toBe('OK');
  });

  it('is open as long as its device is, and detached by who comes next', async () => {
    const user = puppet();
    const { container, groups, devices } = await user.openDevices();
    const [group = -1] = groups;
    const [device] = devices as [DevicePuppet];
    expect((await user.ioctl(group, VFIO_GROUP_UNSET_CONTAINER)).errno).toBe('EBUSY');
    await close(user, group);
    expect(await open(user)).toBe('EBUSY');
    const mapping = await user.mmap(device.fd, 4096, BAR0_AT);
    await close(user, device.fd);
    expect(await open(user), 'mapped').toBe('EBUSY');
    value(await user.puppet.call('munmap', [mapping.value, 4096]));
    const next = value(await user.open(GROUP));
    expect((await user.ioctl(next, VFIO_GROUP_GET_DEVICE_FD, NAME)).errno).toBe('EINVAL');
    value(await user.ioctl(next, VFIO_GROUP_SET_CONTAINER, new Uint8Array(new Int32Array([container]).buffer)));
    value(await user.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    value(await user.ioctl(next, VFIO_GROUP_GET_DEVICE_FD, NAME));
  });

  it('gives a second descriptor of its device, by which nothing is reset', async () => {
    const user = puppet();
    const { groups, devices } = await user.openDevices();
    const [group = -1] = groups;
    const [device] = devices as [DevicePuppet];
    await device.enter(V1.STOP_COPY);
    const limit = async (descriptors: number): Promise<void> => {
      await user.puppet.put('limit', new Uint8Array(new BigUint64Array([BigInt(descriptors), 4096n]).buffer));
      value(await user.puppet.call('prlimit64', [0, 7, '$limit', 0]));
    };
    await user.puppet.memory('limit', 16);
    const look = async (fd: number): Promise<void> => {
      value(await user.ioctl(fd, VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: vfio_device_info.size })));
    };
    await limit(device.fd + 1);
    expect((await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, NAME)).errno).toBe('EMFILE');
    await look(device.fd);
    expect(await device.state(), 'after an open that failed').toBe(2);
    await limit(1024);
    const second = value(await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, NAME));
    await look(second);
    expect(await device.state(), 'after an open').toBe(2);
    await close(user, device.fd);
    await look(second);
    expect((await user.pread(second, 4, device.region)).bytes[0]).toBe(2);
    await close(user, second);
    const third = value(await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, NAME));
    await look(third);
    expect((await user.pread(third, 4, device.region)).bytes[0], 'of a new user').toBe(1);
  });
});
