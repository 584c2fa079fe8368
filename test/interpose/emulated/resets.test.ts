import { expect, it } from 'vitest';
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_STATE,
  vfio_device_bind_iommufd,
  vfio_device_feature,
  vfio_device_feature_mig_state,
  vfio_device_info,
} from '../../../src/abi/index.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const CONFIG = 7n << 40n;
const COMMAND = CONFIG + 0x04n;
const PM_CTRL = CONFIG + 0x44n;
const MSI_ADDRESS = CONFIG + 0x4cn;
const MSI_MASK = CONFIG + 0x58n;
const DEVCTL = CONFIG + 0x74n;
const { RUNNING, STOP_COPY } = VFIO_DEVICE_STATE;

const word = (number: number): Uint8Array => new Uint8Array(Uint16Array.of(number).buffer);
const words = (...numbers: number[]): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer);

/** A program that knows linux/vfio.h and no more, and has a device with a v2 driver in STOP_COPY, with a data fd. */
class Saving {
  readonly user: VfioPuppet;
  readonly fd: number;
  /** The descriptor of its group; -1 of a device that was opened by its own node. */
  readonly group: number;
  dataFd = -1;

  constructor(user: VfioPuppet, fd: number, group: number) {
    this.user = user;
    this.fd = fd;
    this.group = group;
  }

  async begin(): Promise<this> {
    await this.write(COMMAND, word(0x0006));
    await this.write(MSI_ADDRESS, words(0xfee0_0000, 1));
    await this.write(MSI_MASK, words(0xf));
    await this.write(DEVCTL, word(0x5810));
    await this.save();
    return this;
  }

  async save(): Promise<void> {
    this.dataFd = await this.#setState(STOP_COPY);
    expect(await this.readsData()).toBe('OK');
  }

  async readsData(): Promise<string> {
    return (await this.user.puppet.call('read', [this.dataFd, `$${await this.user.argumentsOf(0)}`, 16])).errno;
  }

  async write(at: bigint, bytes: Uint8Array): Promise<void> {
    expect(value(await this.user.pwrite(this.fd, bytes, at))).toBe(bytes.length);
  }

  async read(at: bigint, length: number): Promise<number> {
    const bytes = new Uint8Array(4);
    bytes.set((await this.user.pread(this.fd, length, at)).bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  async #feature(flags: number, state: number): Promise<{ device_state: number; data_fd: number }> {
    const bytes = new Uint8Array(16);
    vfio_device_feature.encode({ argsz: 16, flags: flags | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE }, bytes);
    vfio_device_feature_mig_state.encode({ device_state: state, data_fd: -1 }, bytes.subarray(8));
    const answer = await this.user.ioctl(this.fd, VFIO_DEVICE_FEATURE, bytes);
    value(answer);
    return vfio_device_feature_mig_state.decode(answer.bytes, 8);
  }

  async #setState(state: number): Promise<number> {
    return (await this.#feature(VFIO_DEVICE_FEATURE_SET, state)).data_fd;
  }

  /** True if the device runs, and has nothing more to do with the data fd. */
  async wasReset(): Promise<boolean> {
    const { device_state: state } = await this.#feature(VFIO_DEVICE_FEATURE_GET, 0);
    expect([RUNNING, STOP_COPY]).toContain(state);
    expect(await this.readsData()).toBe(state === RUNNING ? 'ENODEV' : 'OK');
    return state === RUNNING;
  }

  /** What a reset leaves of what begin() has written: COMMAND, the power state, MSI's address and mask, DEVCTL. */
  async written(): Promise<number[]> {
    const all = [];
    for (const [at, length] of [
      [COMMAND, 2],
      [PM_CTRL, 2],
      [MSI_ADDRESS, 4],
      [MSI_MASK, 4],
      [DEVCTL, 2],
    ] as const) {
      all.push(await this.read(at, length));
    }
    return all;
  }

  async ioctl(command: number, bytes: Uint8Array): Promise<string> {
    return (await this.user.ioctl(this.fd, command, bytes)).errno;
  }
}

describeWithCompiler('resets of an emulated device', () => {
  const start = useShimRuns();

  async function byGroup(spec = 'qat,size=64K'): Promise<Saving> {
    const run = start([compiled('puppet')], { devices: [spec, 'mtty'], options: ['--present', 'v2'] });
    const user = new VfioPuppet(new Puppet(run));
    const { devices, groups } = await user.openDevices(2);
    return new Saving(user, devices[0]?.fd ?? -1, groups[0] ?? -1).begin();
  }

  async function byNode(): Promise<Saving> {
    const run = start([compiled('puppet')], { devices: ['qat,size=64K'], options: ['--present', 'v2', '--iommufd'] });
    const user = new VfioPuppet(new Puppet(run));
    const iommufd = value(await user.open('/dev/iommu'));
    const fd = value(await user.open('/dev/vfio/devices/vfio0'));
    value(await user.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd.encode({ argsz: 16, iommufd })));
    value(await user.ioctl(fd, VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: vfio_device_info.size })));
    return new Saving(user, fd, -1).begin();
  }

  it.each([
    ['VFIO_DEVICE_RESET', async (it: Saving) => value(await it.user.ioctl(it.fd, VFIO_DEVICE_RESET))],
    ['FLR', async (it: Saving) => it.write(DEVCTL, word(0x8000 | 0x5810))],
    ['FLR, in one byte', async (it: Saving) => it.write(DEVCTL + 1n, Uint8Array.of(0xd8))],
    [
      'VFIO_DEVICE_PCI_HOT_RESET',
      async (it: Saving) => expect(await it.ioctl(VFIO_DEVICE_PCI_HOT_RESET, words(16, 0, 1, it.group))).toBe('OK'),
    ],
  ])('%s ends its migration, wakes it, and leaves config space as it is', async (_, reset) => {
    const device = await byGroup();
    await device.write(PM_CTRL, word(3));
    expect(await device.wasReset()).toBe(false);
    expect(await device.written()).toEqual([0x0006, 0x000b, 0xfee0_0000, 0xf, 0x5810]);
    await reset(device);
    expect(await device.wasReset()).toBe(true);
    expect(await device.written()).toEqual([0x0006, 0x0008, 0xfee0_0000, 0, 0x5810]);
  });

  const DRIVEN = ['qat', 'mlx5', 'pds', 'virtio', 'xe', 'vendor-v1', 'mlx5-v1', 'nvidia-v1', 'spdk-v1'];
  it.each(DRIVEN)('FLR and its bus end a migration in v1, of %s', async (driver) => {
    const options = ['--present', 'v1', '--data-size', '64K'];
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [`${driver},size=64K`], options })));
    const { devices, groups } = await user.openDevices();
    const [device] = devices as [DevicePuppet];
    const [SAVING, RUNNING_V1] = [2, 1];
    const resets = [
      () => user.pwrite(device.fd, word(0x8000 | 0x2810), DEVCTL),
      () => user.ioctl(device.fd, VFIO_DEVICE_PCI_HOT_RESET, words(16, 0, 1, groups[0] ?? -1)),
    ];
    for (const reset of resets) {
      value(await device.write(0, 4, SAVING));
      expect(await device.state()).toBe(SAVING);
      value(await reset());
      expect(await device.state()).toBe(RUNNING_V1);
    }
  });

  it('the way to D0 resets only without No_Soft_Reset, and FLR only what has it', async () => {
    const keeps = await byGroup();
    for (const state of [3, 0]) await keeps.write(PM_CTRL, word(state));
    expect(await keeps.wasReset()).toBe(false);

    const device = await byGroup('qat,size=64K,reset-method=pm');
    await device.write(DEVCTL, word(0x8000 | 0x5810));
    await device.write(PM_CTRL, word(0));
    for (const state of [3, 1, 2]) await device.write(PM_CTRL, word(state));
    expect(await device.written()).toEqual([0x0006, 0x0003, 0xfee0_0000, 0xf, 0x5810]);
    killHard(await device.user.puppet.run.supervisor());
    expect(await device.wasReset()).toBe(false);
    await device.write(PM_CTRL, word(0));
    expect(await device.wasReset()).toBe(true);
    expect(await device.written()).toEqual([0x0006, 0x0000, 0xfee0_0000, 0, 0x5810]);
  });

  it('by its bus: the user shows its group, and no other', async () => {
    const device = await byGroup('qat,size=64K,reset-method=bus');
    const info = await device.user.ioctl(device.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, words(20, 9, 9, 9, 9));
    expect(info).toMatchObject({ errno: 'OK', value: 0n });
    expect(info.bytes).toBeBytes(words(20, 0, 1, 9000, 0x0090_0000));
    expect(await device.ioctl(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, words(12, 0, 0))).toBe('ENOSPC');
    const other = value(await device.user.puppet.call('dup', [device.group + 1]));
    for (const [fds, errno] of [
      [[], 'EINVAL'],
      [[other], 'EINVAL'],
      [[device.fd], 'EINVAL'],
      [[999], 'EBADF'],
    ] as const) {
      expect(await device.ioctl(VFIO_DEVICE_PCI_HOT_RESET, words(16, 0, fds.length, ...fds))).toBe(errno);
    }
    await device.write(DEVCTL, word(0x8000 | 0x5810));
    expect(await device.wasReset()).toBe(false);
    expect(await device.ioctl(VFIO_DEVICE_PCI_HOT_RESET, words(16, 0, 1, device.group))).toBe('OK');
    expect(await device.wasReset()).toBe(true);
  });

  it('by its bus, if it was opened by its own node: the user shows no group', async () => {
    const device = await byNode();
    const info = await device.user.ioctl(device.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, words(20, 0, 0, 0, 0));
    expect(info.bytes).toBeBytes(words(20, 3, 1, 1, 0x0090_0000));
    expect(await device.ioctl(VFIO_DEVICE_PCI_HOT_RESET, words(16, 0, 1, device.fd))).toBe('EINVAL');
    expect(await device.wasReset()).toBe(false);
    expect(await device.ioctl(VFIO_DEVICE_PCI_HOT_RESET, words(12, 0, 0))).toBe('OK');
    expect(await device.wasReset()).toBe(true);
  });

  it('counts though the supervisor is killed behind it', async () => {
    const device = await byGroup();
    await device.write(DEVCTL, word(0x8000 | 0x5810));
    killHard(await device.user.puppet.run.supervisor());
    expect(await device.wasReset()).toBe(true);
  });
});
