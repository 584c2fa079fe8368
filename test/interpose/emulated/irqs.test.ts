import { readdirSync, readlinkSync } from 'node:fs';
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
  VFIO_PCI_ERR_IRQ_INDEX as ERR,
  VFIO_PCI_INTX_IRQ_INDEX as INTX,
  VFIO_PCI_MSI_IRQ_INDEX as MSI,
  VFIO_PCI_MSIX_IRQ_INDEX as MSIX,
  VFIO_PCI_REQ_IRQ_INDEX as REQ,
  vfio_irq_set,
} from '../../../src/abi/vfio.ts';
import { PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE } from '../../../src/abi/pci.ts';
import { DOORBELL_AT } from '../../../src/interpose/emulated/msix-bar.ts';
import { msixAt, PBA_AT } from '../../../src/sim/pci-capabilities.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { chance } from '../../support/chance.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const EVENTFD_TRIGGER = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
const EVENTFD_UNMASK = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
const NONE_TRIGGER = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
const NONE_MASK = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
const NONE_UNMASK = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
const BAR2 = 2n << 40n;
const CONFIG = 7n << 40n;
const COMMAND_AT = CONFIG + 4n;
const BUS_MASTER = 4;
const MEMORY = 0x2;
const INTX_DISABLE = 0x400;

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // closed meanwhile
  }
}

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
    async set(index: number, flags: number, count: number, fds: readonly number[] = [], start = 0): Promise<string> {
      const head = vfio_irq_set.encode({ argsz: 20 + 4 * fds.length, flags, index, start, count });
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

    /** These bits, and that of memory, without which there is no doorbell. */
    async setCommand(bits: number): Promise<void> {
      const bytes = new Uint8Array(Uint16Array.of(bits | MEMORY).buffer);
      value(await this.user.pwrite(this.device.fd, bytes, COMMAND_AT));
    }

    /** Has the device raise these vectors, a bit each. */
    async ring(vectors: number): Promise<void> {
      value(await this.user.pwrite(this.device.fd, Uint8Array.of(vectors, 0, 0, 0), BAR2 + BigInt(DOORBELL_AT)));
    }

    /** The pending bits of MSI-X. */
    async pending(): Promise<number> {
      const { bytes } = await this.user.pread(this.device.fd, 8, BAR2 + BigInt(PBA_AT));
      return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    }

    /** What the capability says. */
    async msixEnabled(): Promise<boolean> {
      const { bytes } = await this.user.pread(this.device.fd, 2, CONFIG + BigInt(msixAt + PCI_MSIX_FLAGS));
      return (new DataView(bytes.buffer, bytes.byteOffset).getUint16(0, true) & PCI_MSIX_FLAGS_ENABLE) !== 0;
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
    await user.setCommand(INTX_DISABLE);
    expect(await user.set(INTX, NONE_UNMASK, 1)).toBe('OK');
    await user.serveMany();
    expect(await user.counted(fd)).toBe(0);
    await user.setCommand(0);
    expect(await user.untilCounted(fd)).toBe(1);
    const { run } = user.user.puppet;
    run.end();
    expect(await run.ended()).toEqual({ code: 0, signal: null });
    expect(run.reports()[0]?.interrupts).toBeGreaterThan(6);
  });

  it.each([
    ['MSI', MSI],
    ['MSI-X', MSIX],
  ])('%s: each vector has its eventfd, which survives who is killed', async (_, index) => {
    const user = await User.start('qat,size=64K', true);
    const fds = [await user.eventFd(), await user.eventFd(), await user.eventFd()];
    const [first = -1, second = -1, third = -1] = fds;
    expect(await user.set(index, EVENTFD_TRIGGER, 3, [first, -1, second])).toBe('OK');
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [first])).toBe('EINVAL');
    await user.setCommand(BUS_MASTER);
    await user.ring(0b101);
    expect([await user.counted(first), await user.counted(second)]).toEqual([1, 1]);
    await user.killSupervisor();
    await user.ring(0b010);
    await user.ring(0b001);
    expect([await user.counted(first), await user.counted(second)]).toEqual([1, 0]);
    expect(await user.pending()).toBe(index === MSIX ? 0b010 : 0); // masked, as it has no eventfd
    expect(await user.msixEnabled()).toBe(index === MSIX);
    if (index === MSIX) {
      expect(await user.set(index, EVENTFD_TRIGGER, 1, [third], 1)).toBe('OK');
      expect(await user.counted(third)).toBe(1);
      expect(await user.pending()).toBe(0);
    }
    await user.setCommand(0);
    await user.ring(0b001); // what is no bus master sends no message
    expect(await user.counted(first)).toBe(0);
    await user.killSupervisor();
    expect(await user.set(index, NONE_TRIGGER, 0)).toBe('OK');
    expect(await user.msixEnabled()).toBe(false);
    await user.killSupervisor();
    await user.setCommand(BUS_MASTER);
    await user.ring(0b111);
    expect([await user.counted(first), await user.counted(second), await user.counted(third)]).toEqual([0, 0, 0]);
    expect(await user.set(INTX, EVENTFD_TRIGGER, 1, [third])).toBe('OK');
    expect(await user.counted(third)).toBe(1); // the line is asserted since
  });

  it('MSI-X comes by itself, from one vector after the other', async () => {
    const user = await User.start('vendor-v1,size=64K,irq=1000');
    const fds = [await user.eventFd(), await user.eventFd(), await user.eventFd(), await user.eventFd()];
    expect(await user.set(MSIX, EVENTFD_TRIGGER, 4, fds)).toBe('OK');
    await user.serveMany();
    for (const fd of fds) expect(await user.counted(fd)).toBe(0);
    await user.setCommand(BUS_MASTER);
    for (const fd of fds) expect(await user.untilCounted(fd)).toBeGreaterThan(0);
  });

  it('whatever is asked has an answer, and leaves no descriptor behind', async () => {
    const user = await User.start('qat,size=64K,irq=1000');
    const fds = [await user.eventFd(), await user.eventFd(), user.container, 0, -1, -2, 999, 2 ** 31 - 1];
    const eventFdsOf = (pid: number): number =>
      readdirSync(`/proc/${pid}/fd`).filter((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === 'anon_inode:[eventfd]').length;
    const pid = await user.user.puppet.run.supervisor();
    const before = eventFdsOf(pid);
    const draw = chance(7);
    for (let n = 0; n < 400; n += 1) {
      const flags = draw(0x80);
      const index = draw(6);
      const start = draw(4) === 0 ? draw(2 ** 32) : draw(5);
      const count = draw(8) === 0 ? draw(2 ** 32) : draw(5);
      const argsz = draw(8) === 0 ? draw(2 ** 32) : 20 + 4 * 4;
      const chosen = Array.from({ length: 4 }, () => fds[draw(fds.length)] ?? 0);
      const head = vfio_irq_set.encode({ argsz, flags, index, start, count });
      const bytes = Buffer.concat([head, new Uint8Array(Int32Array.from(chosen).buffer)]);
      const { errno } = await user.user.ioctl(user.device.fd, VFIO_DEVICE_SET_IRQS, bytes);
      expect(['OK', 'EINVAL', 'EBADF', 'ENOTTY', 'EBUSY', 'ERANGE', 'EFAULT']).toContain(errno);
    }
    for (const index of [INTX, REQ]) {
      const off = await user.set(index, NONE_TRIGGER, 0);
      expect(['OK', 'EINVAL']).toContain(off);
    }
    for (const index of [MSI, MSIX, ERR]) await user.set(index, NONE_TRIGGER, 0);
    expect(await user.user.puppet.run.supervisor()).toBe(pid);
    expect(eventFdsOf(pid)).toBe(before);
    expect(user.user.puppet.run.stderr).not.toContain('internal error');
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
