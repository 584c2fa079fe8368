import { expect, it } from 'vitest';
import { O_CLOEXEC, O_NONBLOCK } from '../../../src/abi/fcntl.ts';
import {
  VFIO_DEVICE_SET_IRQS,
  VFIO_GET_API_VERSION,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX as INTX,
  VFIO_PCI_REQ_IRQ_INDEX as REQ,
  vfio_irq_set,
} from '../../../src/abi/vfio.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const EVENTFD_TRIGGER = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
const EVENTFD_UNMASK = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
const NONE_TRIGGER = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
const NONE_MASK = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
const NONE_UNMASK = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
const COMMAND_AT = (7n << 40n) + 4n;
const INTX_DISABLE = 0x400;

describeWithCompiler('the interrupts of an emulated device', () => {
  const start = useShimRuns();

  /** A program that has a device, and eventfds for its interrupts. */
  class User {
    readonly user: VfioPuppet;
    readonly container: number;
    readonly device: DevicePuppet;

    private constructor(user: VfioPuppet, container: number, device: DevicePuppet) {
      this.user = user;
      this.container = container;
      this.device = device;
    }

    static async start(spec: string, json = false): Promise<User> {
      const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [spec], json })));
      const { container, devices } = await user.openDevices();
      const [device] = devices as [DevicePuppet];
      return new User(user, container, device);
    }

    async eventFd(): Promise<number> {
      return value(await this.user.puppet.call('eventfd2', [0, O_CLOEXEC | O_NONBLOCK]));
    }

    /** `OK` or an errno. */
    async set(index: number, flags: number, count: number, fds: readonly number[] = []): Promise<string> {
      const head = vfio_irq_set.encode({ argsz: 20 + 4 * fds.length, flags, index, start: 0, count });
      const bytes = Buffer.concat([head, new Uint8Array(Int32Array.from(fds).buffer)]);
      return (await this.user.ioctl(this.device.fd, VFIO_DEVICE_SET_IRQS, bytes)).errno;
    }

    /** What an eventfd has counted since it was read last. */
    async counted(fd: number): Promise<number> {
      const { puppet } = this.user;
      const name = await this.user.argumentsOf(0);
      const { errno } = await puppet.call('read', [fd, `$${name}`, 8]);
      if (errno === 'EAGAIN') return 0;
      const bytes = await puppet.get(name, 8);
      return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    }

    async untilCounted(fd: number): Promise<number> {
      const some = async (): Promise<number | undefined> => (await this.counted(fd)) || undefined;
      return poll(some, 10_000, () => `an interrupt\n${this.user.puppet.run.describe()}`);
    }

    async signal(fd: number): Promise<void> {
      const name = await this.user.argumentsOf(0);
      await this.user.puppet.put(name, new Uint8Array(BigUint64Array.of(1n).buffer));
      value(await this.user.puppet.call('write', [fd, `$${name}`, 8]));
    }

    /** Has so many calls served, and between them so much time pass, that an interrupt of a thousand in a second would have come. */
    async serveMany(): Promise<void> {
      for (let n = 0; n < 100; n += 1) value(await this.user.ioctl(this.container, VFIO_GET_API_VERSION));
    }

    async killSupervisor(): Promise<void> {
      const { run } = this.user.puppet;
      const pid = await run.supervisor();
      killHard(pid);
      value(await this.user.ioctl(this.container, VFIO_GET_API_VERSION)); // its successor answers
    }
  }

  it('are told by the eventfds that were given, and refused as vfio-pci does', async () => {
    const user = await User.start('qat,size=64K');
    const fd = await user.eventFd();
    expect(await user.set(INTX, NONE_TRIGGER, 1)).toBe('EINVAL');
    expect(await user.set(INTX, NONE_MASK, 1)).toBe('EINVAL');
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [999])).toBe('EBADF');
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [user.container])).toBe('EINVAL');
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [fd])).toBe('OK');
    expect(await user.set(INTX, NONE_TRIGGER, 1)).toBe('OK');
    expect(await user.counted(fd)).toBe(1);
    expect(await user.set(REQ, EVENTFD_TRIGGER, 1, [fd])).toBe('OK');
    expect(await user.set(REQ, NONE_MASK, 1)).toBe('ENOTTY');
    await user.killSupervisor();
    expect(await user.set(INTX, NONE_TRIGGER, 1)).toBe('OK');
    expect(await user.set(REQ, NONE_TRIGGER, 1)).toBe('OK');
    expect(await user.counted(fd)).toBe(2);
    expect(await user.set(INTX, NONE_TRIGGER, 0)).toBe('OK');
    expect(await user.set(INTX, NONE_TRIGGER, 0)).toBe('EINVAL');
    await user.killSupervisor();
    expect(await user.set(INTX, NONE_TRIGGER, 1)).toBe('EINVAL');
    expect(await user.set(REQ, NONE_TRIGGER, 1)).toBe('OK');
    expect(await user.counted(fd)).toBe(1);
  });

  it('come by themselves, INTx once until it is unmasked, whoever is killed meanwhile', async () => {
    const user = await User.start('qat,size=64K,irq=1000', true);
    const fd = await user.eventFd();
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [fd])).toBe('OK');
    expect(await user.untilCounted(fd)).toBe(1);
    for (let n = 0; n < 5; n += 1) {
      await user.serveMany();
      expect(await user.counted(fd)).toBe(0);
      await user.killSupervisor();
      expect(await user.set(INTX, NONE_UNMASK, 1)).toBe('OK');
      expect(await user.untilCounted(fd)).toBe(1);
    }
    value(await user.user.pwrite(user.device.fd, Uint8Array.of(0, INTX_DISABLE >> 8), COMMAND_AT));
    expect(await user.set(INTX, NONE_UNMASK, 1)).toBe('OK');
    await user.serveMany();
    expect(await user.counted(fd)).toBe(0);
    value(await user.user.pwrite(user.device.fd, Uint8Array.of(0, 0), COMMAND_AT));
    expect(await user.untilCounted(fd)).toBe(1);
    const { run } = user.user.puppet;
    run.end();
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    expect(run.reports()[0]?.interrupts).toBeGreaterThan(6);
  });

  it('INTx is unmasked by an eventfd, by a successor too', async () => {
    const user = await User.start('vendor-v1,size=64K,irq=1000');
    const fd = await user.eventFd();
    const unmask = await user.eventFd();
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [fd])).toBe('OK');
    expect(await user.set(INTX, EVENTFD_UNMASK, 1, [unmask])).toBe('OK');
    expect(await user.set(INTX, EVENTFD_UNMASK, 1, [unmask])).toBe('EBUSY');
    expect(await user.untilCounted(fd)).toBe(1);
    for (let n = 0; n < 5; n += 1) {
      await user.serveMany();
      expect(await user.counted(fd)).toBe(0);
      await user.killSupervisor();
      await user.signal(unmask);
      expect(await user.untilCounted(fd)).toBe(1);
      expect(await user.counted(unmask)).toBe(0);
    }
    expect(await user.set(INTX, EVENTFD_UNMASK, 1, [-1])).toBe('OK');
    await user.signal(unmask);
    await user.serveMany();
    expect([await user.counted(fd), await user.counted(unmask)]).toEqual([0, 1]);
  });
});
