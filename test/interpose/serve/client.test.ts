import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_info,
  vfio_group_status,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
} from '../../../src/abi/vfio.ts';
import { F_DUPFD_CLOEXEC, F_SETFD, O_CLOEXEC, O_RDONLY, O_RDWR } from '../../../src/abi/fcntl.ts';
import { MAP_SHARED, PROT_READ } from '../../../src/abi/mman.ts';
import { MIGRATION_REGION_INDEX } from '../../../src/vfio/server/device-requests.ts';
import { noise, sha256 } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { useShimRuns, type RunOptions } from '../../support/shim-run.ts';
import { BAR0_AT, nr, SECTION, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { inShort } from '../../support/runs.ts';

const CONFIG = 7n << 40n;
const STATE = 0;
const [RUNNING, STOP_COPY, PRE_COPY, RESUMING, STOP] = [1, 2, 3, 4, 0];
const MiB = 1024 * 1024;

describeWithCompiler('a program of its own as VMM', () => {
  const start = useShimRuns();

  function startPuppet(options: RunOptions): VfioPuppet {
    return new VfioPuppet(new Puppet(start([compiled('puppet')], options)));
  }

  /** Ends the puppet and returns its devices' final hashes. */
  async function hashes(user: VfioPuppet): Promise<string[]> {
    user.puppet.run.end();
    expect(await user.puppet.run.ended()).toEqual({ code: 0, signal: null });
    return user.puppet.run.reports().map(({ sha256 }) => String(sha256));
  }

  it('finds container, group and device as the kernel would show them', async () => {
    const user = startPuppet({ devices: ['qat,size=1M,seed=5'], json: true });
    const container = value(await user.open('/dev/vfio/vfio', 0, O_RDWR | O_CLOEXEC));
    expect((await user.ioctl(container, VFIO_GET_API_VERSION)).value).toBe(BigInt(VFIO_API_VERSION));
    expect((await user.ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU)).value).toBe(1n);
    expect((await user.ioctl(container, VFIO_CHECK_EXTENSION, 99)).value).toBe(0n);
    expect((await user.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).errno).toBe('EINVAL');

    expect((await user.open('/dev/vfio/9001')).errno).toBe('ENOENT');
    expect((await user.open('/dev/vfio/9000', 0, O_RDONLY)).errno).toBe('ENOENT');
    const group = value(await user.open('/dev/vfio/9000'));
    const status = vfio_group_status.encode({ argsz: 8 });
    const before = await user.ioctl(group, VFIO_GROUP_GET_STATUS, status);
    expect(vfio_group_status.decode(before.bytes).flags).toBe(VFIO_GROUP_FLAGS_VIABLE);
    const name = Buffer.from('0000:90:00.0\0');
    expect((await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)).errno).toBe('EINVAL');
    const into = new Uint8Array(new Int32Array([container]).buffer);
    expect((await user.ioctl(group, VFIO_GROUP_SET_CONTAINER, into)).errno).toBe('OK');
    expect((await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)).errno).toBe('EINVAL');
    expect((await user.ioctl(container, VFIO_SET_IOMMU, 99)).errno).toBe('ENODEV');
    expect((await user.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)).errno).toBe('OK');
    const after = await user.ioctl(group, VFIO_GROUP_GET_STATUS, status);
    expect(vfio_group_status.decode(after.bytes).flags).toBe(VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect((await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, Buffer.from('0000:91:00.0\0'))).errno).toBe('ENODEV');
    const device = value(await user.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name));

    const info = await user.ioctl(device, VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: 24 }));
    expect(vfio_device_info.decode(info.bytes)).toMatchObject({
      flags: VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
      num_regions: VFIO_PCI_NUM_REGIONS + 1,
      num_irqs: VFIO_PCI_NUM_IRQS,
    });
    const irq = await user.ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, vfio_irq_info.encode({ argsz: 16, index: 0 }));
    expect(vfio_irq_info.decode(irq.bytes).count).toBe(1);
    const off = vfio_irq_set.encode({ argsz: 20, flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER });
    expect((await user.ioctl(device, VFIO_DEVICE_SET_IRQS, off)).errno).toBe('EINVAL'); // it is off already
    // what is no VFIO ioctl is the memfd's own business, which has none
    expect((await user.ioctl(device, 0x5401, 0)).errno).toBe('ENOTTY');
    expect((await user.ioctl(device, VFIO_DEVICE_RESET)).errno).toBe('OK');
    await hashes(user);
  });

  it('reaches BAR0 without a trap, through the descriptor and by mmap', async () => {
    const user = startPuppet({ devices: ['qat,size=1M,seed=5'], json: true });
    const { devices } = await user.openDevices();
    const [device] = devices as [DevicePuppet];
    const readWrite = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    const bar = vfio_region_info.decode((await device.regionInfo(0)).bytes);
    expect(bar).toMatchObject({ flags: readWrite | VFIO_REGION_INFO_FLAG_MMAP, size: BigInt(MiB), offset: BAR0_AT });
    const config = vfio_region_info.decode((await device.regionInfo(7)).bytes);
    expect(config).toMatchObject({ flags: readWrite, size: 256n, offset: CONFIG });

    const header = (await user.pread(device.fd, 64, CONFIG)).bytes;
    expect(new DataView(header.buffer).getUint32(0, true)).toBe(0x4941_8086);
    const mapping = BigInt(value(await user.mmap(device.fd, MiB, BAR0_AT)));
    const bytes = noise(300, 9);
    await user.pwrite(device.fd, bytes, BAR0_AT + 4000n);
    expect(await user.peek(mapping + 4000n, 300)).toEqual(bytes);
    await user.poke(mapping + BigInt(MiB - 300), bytes);
    expect((await user.pread(device.fd, 300, BAR0_AT + BigInt(MiB - 300))).bytes).toEqual(bytes);

    const whole = createHash('sha256');
    for (let at = 0; at < MiB; at += 32768)
      whole.update((await user.pread(device.fd, 32768, BAR0_AT + BigInt(at))).bytes);
    expect(await hashes(user)).toEqual([whole.digest('hex')]);
    // GET_INFO and two GET_REGION_INFO; the mmap is let go on
    expect(user.puppet.run.reports()[0]?.trappedCalls).toBe(3);
  });

  it.each(
    inShort(
      [
        ['mmap', 'qat,size=200K,seed=11', 'qat,size=200K'],
        ['pread', 'qat,size=200K,seed=11', 'qat,size=200K'],
        ['pread', 'hisi,size=70K,seed=12,short=5000,block=2', 'hisi,size=70K,short=777,block=1'],
        ['mmap', 'mtty,seed=3', 'mtty'],
        ['mmap', 'vendor-v1,size=100K,section=16K,seed=13', 'vendor-v1,size=100K,section=8K'],
      ] as const,
      (_, n) => n % 2 === 0,
    ),
  )('saves and restores with %s, %s to %s', async (way, from, to) => {
    const options = { json: true, options: ['--data-size', '64K'] };
    const [source, destination] = [from, to].map((spec) => startPuppet({ ...options, devices: [spec] })) as [
      VfioPuppet,
      VfioPuppet,
    ];
    const [saved, loaded] = (await Promise.all([source.openDevices(), destination.openDevices()])).map(
      ({ devices }) => devices[0],
    ) as [DevicePuppet, DevicePuppet];
    const mapped = async (device: DevicePuppet): Promise<bigint | undefined> => {
      const { size } = vfio_region_info.decode((await device.regionInfo(MIGRATION_REGION_INDEX)).bytes);
      const outcome = await device.user.mmap(device.fd, Number(size - SECTION), device.region + SECTION);
      return way === 'mmap' ? BigInt(value(outcome)) : undefined;
    };
    const here = await mapped(saved);
    const there = await mapped(loaded);

    expect(await saved.state()).toBe(RUNNING);
    await saved.enter(PRE_COPY);
    const early = await saved.save(here);
    await saved.user.pwrite(saved.fd, noise(8, 2), BAR0_AT); // the guest goes on working
    await saved.enter(STOP_COPY);
    const late = await saved.save(here);
    await saved.enter(STOP);
    expect(await saved.state()).toBe(STOP);

    await loaded.enter(RESUMING);
    await loaded.load([...early, ...late], there, 8192);
    await loaded.enter(RUNNING);
    expect(await loaded.state()).toBe(RUNNING);
    const [sent, arrived] = await Promise.all([hashes(source), hashes(destination)]);
    expect(arrived).toEqual(sent);
    const bytes = [...early, ...late].reduce((sum, { length }) => sum + length, 0);
    expect(source.puppet.run.reports()[0]).toMatchObject({ bytesOut: bytes, bytesIn: 0 });
    expect(destination.puppet.run.reports()[0]).toMatchObject({ bytesOut: 0, bytesIn: bytes });
  });

  it('keeps several devices apart, called by several threads at once', async () => {
    const specs = [1, 2, 3, 4].map((seed) => `qat,size=64K,seed=${seed}`);
    const user = startPuppet({ devices: specs, json: true, options: ['--data-size', '16K'] });
    const { devices } = await user.openDevices(4);
    const script = (device: DevicePuppet, thread: number): string =>
      `new m${thread} 8; loop 2000 ${nr('pread64')} ${device.fd} $m${thread} 4 ${device.region}`;
    const loops = devices.flatMap((device, n) =>
      [1, 2].map((k) => user.puppet.script(script(device, 2 * n + k), 2 * n + k)),
    );
    // meanwhile each of them saves, on the main thread in turn
    const saved: Uint8Array[][] = [];
    for (const device of devices) {
      await device.enter(STOP_COPY);
      saved.push(await device.save());
      await device.enter(STOP);
    }
    for (const outcome of await Promise.all(loops)) expect(outcome).toMatchObject({ value: 2000n, errno: 'OK' });
    const payloads = saved.map((buffers) => sha256(Buffer.concat(buffers).subarray(32)));
    expect(new Set(payloads).size).toBe(4);
    expect(await hashes(user)).toEqual(payloads);
    for (const report of user.puppet.run.reports()) expect(report.trappedCalls).toBeGreaterThan(4000);
  });

  it('is the same device for duplicates of its descriptor, for children and for programs they become', async () => {
    const user = startPuppet({ devices: ['qat'], json: true });
    const { puppet } = user;
    const { container, devices } = await user.openDevices();
    const [device] = devices as [DevicePuppet];
    const copies = [
      value(await puppet.call('dup', [device.fd])),
      value(await puppet.call('dup3', [device.fd, 60, O_CLOEXEC])),
      value(await puppet.call('fcntl', [device.fd, F_DUPFD_CLOEXEC, 80])),
    ];
    await puppet.memory('here', 8);
    for (const fd of copies) {
      const read = callText('pread64', [fd, '$here', 4, device.region]);
      expect((await puppet.script(`put here 0 00; ${read}; get here 0 4`)).bytes).toEqual(new Uint8Array([1, 0, 0, 0]));
      expect((await user.ioctl(fd, VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: 24 }))).errno).toBe('OK');
    }

    const stop = `new b 8; put b 0 00; ${callText('pwrite64', [device.fd, '$b', 4, device.region])}`;
    expect(await puppet.script(`fork ${stop}`)).toMatchObject({ value: 4n, errno: 'OK' });
    expect(await device.state()).toBe(STOP);
    const version = callText('ioctl', [container, VFIO_GET_API_VERSION]);
    expect(await puppet.script(`fork fork ${version}`)).toMatchObject({ value: 0n, errno: 'OK' });

    // close-on-exec, as the kernel gives it: a program that is started finds nothing, unless it was meant to
    const start = `new b 8; put b 0 01; ${callText('pwrite64', [device.fd, '$b', 4, device.region])}`;
    expect((await puppet.script(`spawn ${start}`)).errno).toBe('EBADF');
    value(await puppet.call('fcntl', [device.fd, F_SETFD, 0]));
    expect(await puppet.script(`spawn ${start}`)).toMatchObject({ value: 4n, errno: 'OK' });
    expect(await device.state()).toBe(RUNNING);
    expect(await puppet.script(`spawn spawn ${start}`)).toMatchObject({ value: 4n, errno: 'OK' });

    // and a mapping made by a child's thread is the child's
    const map = callText('mmap', [0, 4096, PROT_READ, MAP_SHARED, device.fd, device.region + SECTION]);
    const mapped = await puppet.script(`fork ${map}; peek $ 4`);
    expect(mapped).toMatchObject({ errno: 'OK', bytes: new Uint8Array(4) });
    value(await puppet.call('close', [device.fd]));
    expect((await user.pread(copies[0] ?? -1, 4, device.region)).errno).toBe('OK');
    for (const fd of copies) value(await puppet.call('close', [fd]));
    expect((await user.pread(device.fd, 4, device.region)).errno).toBe('EBADF');
    await hashes(user);
  });

  it('works behind a shell, and for one user after the other', async () => {
    const program = compiled('puppet');
    const user = new VfioPuppet(new Puppet(start(['sh', '-c', `${program} && ${program}; true`], { json: true })));
    const first = (await user.openDevices()).devices[0] as DevicePuppet;
    await first.enter(PRE_COPY);
    expect((await first.save()).length).toBeGreaterThan(0);
    const { puppet } = user;
    void puppet.send(callText('exit_group', [0]));
    // a new program, without the memory of the first: what its user left behind is not met
    await puppet.call('getpid', []);
    const second = (await new VfioPuppet(puppet).openDevices()).devices[0] as DevicePuppet;
    expect(await second.state()).toBe(RUNNING);
    expect(await second.read(STATE, 4)).toBe(1n);
    await hashes(user);
  });
});
