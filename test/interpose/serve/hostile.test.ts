import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_MIG_GET_PRECOPY_INFO,
  vfio_irq_set,
} from '../../../src/abi/vfio.ts';
import { F_ADD_SEALS, F_SEAL_WRITE, F_SETFL, O_APPEND, O_NONBLOCK } from '../../../src/abi/fcntl.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { arch } from '../../../src/sys/libc.ts';
import { V1 } from '../../../src/v1/states.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { noise } from '../../support/bytes.ts';
import {
  compiled,
  describeRunsWithCompiler,
  describeWithCompiler,
  executableDirectory,
} from '../../support/compiler.ts';
import { callText, Puppet } from '../../support/puppet.ts';
import { statusOf, useShimRuns, type RunOptions } from '../../support/shim-run.ts';
import { BAR0_AT, nr, SECTION, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';
import { AT_LENGTH, FULL } from '../../support/runs.ts';
import { patient } from '../../support/patience.ts';

const { SIGKILL, SIGUSR1 } = constants.signals;
const many = FULL ? 20 : 1;
const section = 64 * 1024;
/** fallocate(2); punching a hole keeps the size. */
const FALLOCATE = arch.name === 'x64' ? 285 : 47;
const PUNCH_HOLE = 3;
/** Whether a file system can be mounted where nobody else sees it. */
const canMount = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;
const BAD = [0n, 8n, 2n ** 47n - 4096n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 4096n];

interface Target {
  readonly user: VfioPuppet;
  readonly puppet: Puppet;
  readonly container: number;
  readonly groups: readonly number[];
  readonly first: DevicePuppet;
  readonly second: DevicePuppet;
}

async function openTarget(user: VfioPuppet): Promise<Target> {
  const { container, groups, devices } = await user.openDevices(2);
  const [first, second] = devices as [DevicePuppet, DevicePuppet];
  return { user, puppet: user.puppet, container, groups, first, second };
}

/** A call that must work, whatever came before: the supervisor lives, has its wits, and is the one it was. */
async function checkServed({ puppet, first, second }: Target, supervisor: number): Promise<void> {
  expect(await first.state()).toBe(V1.RUNNING);
  expect(await second.state()).toBe(V1.RUNNING);
  expect(await puppet.run.supervisor()).toBe(supervisor);
}

/** What a process has open, by its names in /proc. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile
    }
  });
}

describeRunsWithCompiler('a target that asks for the absurd', () => {
  const start = useShimRuns('all');
  let target: Target;
  let supervisor = 0;
  let rss = 0;

  beforeAll(async () => {
    const options: RunOptions = {
      devices: ['qat,size=1M', 'vendor-v1,size=64K,section=64K'],
      options: ['--data-size', '64K'],
    };
    target = await openTarget(new VfioPuppet(new Puppet(start([compiled('puppet')], options))));
    supervisor = await target.puppet.run.supervisor();
    rss = statusOf(supervisor, 'VmRSS');
  });

  afterAll(async () => {
    await checkServed(target, supervisor);
    // code that was loaded and garbage that was not yet collected, but nothing of a size that the target named
    expect(statusOf(supervisor, 'VmRSS') - rss).toBeLessThan(80 * 1024);
    expect(target.puppet.run.stderr).not.toContain('internal error');
  });

  it('gets EFAULT for structs where there is no memory', async () => {
    const { puppet, container, groups, first, second } = target;
    const [group = -1] = groups;
    const structs: [fd: number, command: number][] = [
      ...[VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA, VFIO_IOMMU_DIRTY_PAGES].map(
        (command): [number, number] => [container, command],
      ),
      ...[VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_GET_DEVICE_FD].map(
        (command): [number, number] => [group, command],
      ),
      ...[
        VFIO_DEVICE_GET_INFO,
        VFIO_DEVICE_GET_REGION_INFO,
        VFIO_DEVICE_GET_IRQ_INFO,
        VFIO_DEVICE_SET_IRQS,
        VFIO_DEVICE_FEATURE,
        VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
        VFIO_DEVICE_PCI_HOT_RESET,
      ].flatMap((command): [number, number][] => [
        [first.fd, command],
        [second.fd, command],
      ]),
    ];
    await puppet.memory('edge', 3); // three bytes before the end
    for (const [fd, command] of structs) {
      // three zero bytes are an empty name, and no struct
      for (const at of [...BAD, ...(command === VFIO_GROUP_GET_DEVICE_FD ? [] : ['$edge' as const])]) {
        expect((await puppet.call('ioctl', [fd, command, at])).errno, `${command.toString(16)} ${at}`).toBe('EFAULT');
      }
    }
    await checkServed(target, supervisor);
  });

  it('gets an errno for every argsz, flag and index, and its memory stays its own', async () => {
    const { puppet, container, groups, first } = target;
    await puppet.memory('whole', 4096);
    const numbers = [0, 1, 7, 8, 16, 24, 31, 32, 48, 100, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    const commands: [fd: number, command: number][] = [
      [container, VFIO_IOMMU_GET_INFO],
      [container, VFIO_IOMMU_MAP_DMA],
      [container, VFIO_IOMMU_UNMAP_DMA],
      [container, VFIO_IOMMU_DIRTY_PAGES],
      [groups[0] ?? -1, VFIO_GROUP_GET_STATUS],
      [first.fd, VFIO_DEVICE_GET_INFO],
      [first.fd, VFIO_DEVICE_GET_REGION_INFO],
      [first.fd, VFIO_DEVICE_GET_IRQ_INFO],
      [first.fd, VFIO_DEVICE_SET_IRQS],
      [first.fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO],
      [first.fd, VFIO_DEVICE_PCI_HOT_RESET],
    ];
    for (const [fd, command] of commands) {
      for (const argsz of numbers) {
        for (const rest of [0, 0xff]) {
          // the struct lies at the end of its memory, and announces more
          const bytes = new Uint8Array(64).fill(rest);
          new DataView(bytes.buffer).setUint32(0, argsz, true);
          await puppet.put('whole', bytes, 4032);
          const { errno } = await puppet.call('ioctl', [fd, command, '$whole+4032']);
          const errnos = [
            'OK',
            'EINVAL',
            'EFAULT',
            ...(command === VFIO_DEVICE_GET_PCI_HOT_RESET_INFO ? ['ENOSPC'] : []),
          ];
          expect(errnos, `${command.toString(16)} argsz ${argsz}`).toContain(errno);
        }
      }
    }
    const huge = vfio_irq_set.encode({ argsz: 0xffff_ffff, flags: 0x24, index: 0, start: 0, count: 0xffff_ffff });
    await puppet.put('whole', huge);
    expect((await puppet.call('ioctl', [first.fd, VFIO_DEVICE_SET_IRQS, '$whole'])).errno).toBe('EINVAL');
    await checkServed(target, supervisor);
  });

  it('gets no more of config space and of the BAR of MSI-X than there is, whatever length it names', async () => {
    const { puppet, first } = target;
    await puppet.memory('small', 4096);
    const [bar, config] = [2n << 40n, 7n << 40n];
    for (const length of [4097, 0x7fff_ffff, 0xffff_ffff, 2n ** 40n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
      expect((await puppet.call('pwrite64', [first.fd, '$small', length, config])).errno, `${length}`).toBe('EFAULT');
      for (const call of ['pread64', 'pwrite64'] as const) {
        expect(await puppet.call(call, [first.fd, '$small', length, bar]), `${call} ${length}`).toMatchObject({
          errno: 'OK',
          value: 4096n,
        });
        expect((await puppet.call(call, [first.fd, '$small+4092', length, bar])).errno).toBe('EFAULT');
      }
    }
    await checkServed(target, supervisor);
  });

  it('gets EINVAL for accesses that are not within the region, of any length', async () => {
    const { puppet, first } = target;
    await puppet.memory('buffer', section + 4096);
    const size = BigInt(section) + SECTION;
    const cases: [length: bigint, offset: bigint][] = [
      [0n, size],
      [1n, 0n],
      [3n, 0n],
      [5n, 0n],
      [8n, 0n],
      [4n, 8n],
      [4n, 2n],
      [8n, 32n],
      [4n, 4092n],
      [8n, 4092n],
      [4096n, 0n],
      [size, 0n],
      [1n, size],
      [2n, size - 1n],
      [BigInt(section) + 1n, SECTION],
      [2n ** 31n, SECTION],
      [2n ** 63n, SECTION],
      [2n ** 64n - 1n, SECTION],
      [2n ** 64n - 1n, 0n],
      [8n, (1n << 40n) - 8n],
      [2n ** 53n + 8n, 8n],
    ];
    for (const name of ['pread64', 'pwrite64'] as const) {
      for (const [length, offset] of cases) {
        const outcome = await puppet.call(name, [first.fd, '$buffer', length, first.region + offset]);
        // a length that no buffer can have is refused before or behind the filter
        expect(['EINVAL', ...(length === 0n ? ['OK'] : [])], `${name} ${length} at ${offset}`).toContain(outcome.errno);
      }
      for (const at of BAD) {
        const register = await puppet.call(name, [first.fd, at, 4, first.region]);
        const data = await puppet.call(name, [first.fd, at, section, first.region + SECTION]);
        expect([register.errno, data.errno]).toEqual(['EFAULT', 'EFAULT']);
      }
      const whole = await puppet.call(name, [first.fd, '$buffer', section, first.region + SECTION]);
      expect(whole).toMatchObject({ errno: 'OK', value: BigInt(section) });
      const beyond = await puppet.call(name, [first.fd, `$buffer+${section}`, section, first.region + SECTION]);
      expect(beyond.errno).toBe('EFAULT');
    }
    await checkServed(target, supervisor);
  });

  it('is told nothing of other descriptors at these offsets', async () => {
    const { puppet, user, first, second, container } = target;
    const ends = await puppet.script(`new ends 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    const [reader = -1, writer = -1] = new Int32Array(ends.bytes.buffer);
    const path = join(executableDirectory(), `plain-${process.pid}`);
    writeFileSync(path, '');
    const file = value(await user.open(path));
    unlinkSync(path);
    const name = await user.argumentsOf(0);
    const pread = async (fd: number, offset: bigint): Promise<string> => {
      const { errno, value: length } = await puppet.call('pread64', [fd, `$${name}`, 4, offset]);
      return errno === 'OK' ? String(length) : errno;
    };
    expect(await pread(reader, first.region)).toBe('ESPIPE');
    expect(await pread(writer, first.region)).toBe('ESPIPE');
    expect(await pread(file, first.region)).toBe('0');
    expect(await pread(-1, first.region)).toBe('EBADF');
    expect(await pread(9999, first.region)).toBe('EBADF');
    expect(await pread(container, first.region)).toBe('0');
    // each device's fd has its own window; in the others' there is nothing, or nothing but zeros
    for (const [fd, offset] of [
      [first.fd, second.region],
      [second.fd, first.region],
      [first.fd, first.region + (200n << 40n)],
    ] as const) {
      const elsewhere = await user.pread(fd, 4, offset);
      expect(elsewhere).toMatchObject({ errno: 'OK' });
      if (elsewhere.value > 0n) expect(elsewhere.bytes).toEqual(new Uint8Array(4));
    }
    for (const fd of [reader, file, 9999, -1]) {
      const { errno } = await user.ioctl(fd, VFIO_DEVICE_RESET);
      expect(errno).toBe(fd === reader || fd === file ? 'ENOTTY' : 'EBADF');
    }
    for (const fd of [reader, writer, file]) value(await puppet.call('close', [fd]));
    await checkServed(target, supervisor);
  });

  it('cannot cut off, seal or starve the memory that it was given', async () => {
    const { puppet, user, groups, first } = target;
    const mapping = BigInt(value(await user.mmap(first.fd, 1 << 20, BAR0_AT)));
    for (const fd of [first.fd, groups[0] ?? -1]) {
      expect((await puppet.call('ftruncate', [fd, 0])).errno).not.toBe('OK');
      expect((await puppet.call('ftruncate', [fd, 2n ** 50n])).errno).not.toBe('OK');
      expect((await puppet.call('fcntl', [fd, F_ADD_SEALS, F_SEAL_WRITE])).errno).toBe('EPERM');
      value(await puppet.call('fcntl', [fd, F_SETFL, O_APPEND | O_NONBLOCK]));
      expect((await puppet.call(FALLOCATE, [fd, 0, 2n ** 63n - 8192n, 4096])).errno).not.toBe('OK');
    }
    await user.poke(mapping, noise(64));
    value(await puppet.call(FALLOCATE, [first.fd, PUNCH_HOLE, 0, BAR0_AT + BigInt(1 << 20)]));
    expect(await user.peek(mapping, 64)).toEqual(new Uint8Array(64));
    await checkServed(target, supervisor);
    // what is read of config space is gone by the target's own hand; the device still saves what its memory is now
    await user.poke(mapping + 5000n, noise(64, 8));
    await first.enter(V1.STOP_COPY);
    const state = Buffer.concat(await first.save());
    expect(state.subarray(32 + 5000, 32 + 5064)).toEqual(Buffer.from(noise(64, 8)));
    await first.enter(V1.RUNNING);
    value(await puppet.call('fcntl', [first.fd, F_SETFL, 0]));
  });

  it('loses no byte of a data fd by asking for it in vain', async () => {
    const { puppet, user, second, first } = target;
    /** VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: enters a state, and returns the data fd. */
    const enter = async (device: DevicePuppet, state: number): Promise<number> => {
      const bytes = new Uint8Array(new Uint32Array([16, (1 << 17) | 2, state, 0]).buffer);
      const outcome = await user.ioctl(device.fd, VFIO_DEVICE_FEATURE, bytes);
      value(outcome);
      return new DataView(outcome.bytes.buffer).getInt32(12, true);
    };
    await puppet.memory('data', 65536);
    await user.pwrite(first.fd, noise(4096, 6), BAR0_AT);
    const saving = await enter(first, 3);
    expect(saving).toBeGreaterThan(100);
    for (const at of BAD) expect((await puppet.call('read', [saving, at, 4096])).errno).toBe('EFAULT');
    expect((await puppet.call('read', [saving, '$data+65532', 4096])).errno).toBe('EFAULT');
    expect((await puppet.call('write', [saving, '$data', 8])).errno).toBe('EBADF');
    const pieces: Uint8Array[] = [];
    for (;;) {
      const outcome = await puppet.script(`${callText('read', [saving, '$data', 65536])}; get data 0 65536`);
      if (value(outcome) === 0) break;
      pieces.push(outcome.bytes.subarray(0, value(outcome)));
    }
    const state = Buffer.concat(pieces);
    expect(state.length).toBe(32 + (1 << 20));
    expect(state.subarray(32, 32 + 4096)).toEqual(Buffer.from(noise(4096, 6)));
    for (const at of BAD) {
      expect((await puppet.call('ioctl', [saving, VFIO_MIG_GET_PRECOPY_INFO, at])).errno).toBe('EFAULT');
    }
    await enter(first, 2);
    expect((await puppet.call('read', [saving, '$data', 1])).errno).toBe('ENODEV');

    const resuming = await enter(first, 4);
    for (const at of BAD) expect((await puppet.call('write', [resuming, at, 4096])).errno).toBe('EFAULT');
    expect((await puppet.call('write', [resuming, '$data+65532', 4096])).errno).toBe('EFAULT');
    expect((await puppet.call('write', [resuming, '$data', 2n ** 64n - 1n])).errno).not.toBe('OK');
    for (let at = 0; at < state.length; at += 32768) {
      const piece = state.subarray(at, at + 32768);
      await puppet.put('data', piece);
      expect((await puppet.call('write', [resuming, '$data', piece.length])).value).toBe(BigInt(piece.length));
    }
    await enter(first, 2);
    expect((await user.pread(first.fd, 4096, BAR0_AT)).bytes).toEqual(noise(4096, 6));
    for (const fd of [saving, resuming]) value(await puppet.call('close', [fd]));
    for (const fd of [saving, resuming]) expect((await puppet.call('read', [fd, '$data', 1])).errno).toBe('EBADF');
    expect(await second.state()).toBe(V1.RUNNING);
  });

  it('writes the protocol out of order and only spoils its own migration', async () => {
    const { first, second } = target;
    for (const device of [first, second]) {
      for (const bad of [5, 6, 7, 8, 9, 0x100, 0xffff_ffff]) {
        expect((await device.write(0, 4, bad)).errno, String(bad)).toBe('EINVAL');
      }
      for (const [offset, data] of [
        [8, 1n],
        [16, 4096n],
        [24, 2n ** 64n - 1n],
        [24, BigInt(section) + 1n],
        [24, 8n],
      ] as const) {
        expect((await device.write(offset, 8, data)).errno, `${offset}`).toBe('EINVAL');
      }
      await device.enter(V1.RESUMING);
      for (let n = 0; n < 3; n += 1) await device.write(24, 8, section); // zeros are no device state
      await device.write(0, 4, 1);
      await device.user.ioctl(device.fd, VFIO_DEVICE_RESET);
    }
    await checkServed(target, supervisor);
  });

  it('cannot make it forget containers, or fill it with mappings', async () => {
    const { puppet, user, container } = target;
    for (let n = 0; n < 300; n += 1) await puppet.call('close', [value(await user.open('/dev/vfio/vfio'))]);
    expect((await user.ioctl(container, VFIO_GET_API_VERSION)).value).toBe(0n);
    const map = new Uint8Array(32);
    const view = new DataView(map.buffer);
    view.setUint32(0, 32, true);
    view.setUint32(4, VFIO_DMA_MAP_FLAG_READ, true);
    view.setBigUint64(24, 4096n, true);
    await puppet.memory('map', 32);
    await puppet.put('map', map);
    const call = `${nr('ioctl')} ${container} ${VFIO_IOMMU_MAP_DMA} $map`;
    for (let n = 0; n < 200; n += 1) {
      view.setBigUint64(16, BigInt(n) * 8192n, true);
      await puppet.put('map', map);
      expect((await puppet.script(`call ${call}`)).errno).toBe('OK');
      expect((await puppet.script(`call ${call}`)).errno).toBe('EEXIST');
    }
    const unmap = new Uint8Array(24);
    new DataView(unmap.buffer).setUint32(0, 24, true);
    new DataView(unmap.buffer).setUint32(4, 2, true);
    const all = await user.ioctl(container, VFIO_IOMMU_UNMAP_DMA, unmap);
    expect(new DataView(all.bytes.buffer).getBigUint64(16, true)).toBe(200n * 4096n);
  });
});

describeWithCompiler('a target whose threads come to an end', () => {
  const start = useShimRuns();

  async function open(devices: readonly string[], args: RunOptions = {}): Promise<Target> {
    const options = { devices, options: ['--data-size', '64K'], ...args };
    return openTarget(new VfioPuppet(new Puppet(start([compiled('puppet')], options))));
  }

  it.each([
    ['while their calls are served', 'qat'],
    ['while their calls wait', 'qat,block=1000000'],
  ])('%s, is served on', { timeout: patient(120_000) }, async (_, device) => {
    const target = await open([device, 'qat']);
    const { puppet, first, second } = target;
    const supervisor = await puppet.run.supervisor();
    await first.enter(V1.STOP_COPY);
    // data_offset has the data read, which waits where the device has "block"
    const call = `${nr('pread64')} ${first.fd} $dead 8 ${first.region + 16n}`;
    await puppet.memory('dead', 8);
    // more than can wait at a time: those of the dead take up no place
    for (let n = 0; n < 70 * many; n += 1) {
      const delay = Math.floor(Math.random() * 3000);
      const dead = await puppet.script(`doomed ${delay} ${SIGKILL} loop 1000000 ${call}`);
      expect(dead.value).toBe(BigInt(SIGKILL));
    }
    // a thread that is cancelled, and one that ends by itself, while others wait
    for (let thread = 1; thread <= 6; thread += 1) {
      void puppet.send(`loop 1000000 ${call}`, thread);
      await puppet.call('gettid', []);
    }
    if (device === 'qat') {
      await puppet.script('cancel 1; cancel 2; cancel 3');
    }
    expect(await second.state()).toBe(V1.RUNNING);
    expect(await puppet.run.supervisor()).toBe(supervisor);
    // the whole target ends while calls of its threads wait
    void puppet.send(callText('exit_group', [3]));
    expect(await puppet.run.ended(5000)).toEqual({ code: 3, signal: null });
  });

  it('answers others while a device is slow, up to the last that can wait and beyond', async () => {
    const { puppet, first, second } = await open(['qat,block=1000000', 'qat']);
    await first.enter(V1.STOP_COPY);
    const supervisor = await puppet.run.supervisor();
    await puppet.memory('waiting', 8);
    const call = `call ${nr('pread64')} ${first.fd} $waiting 8 ${first.region + 16n}`;
    for (let thread = 1; thread <= 63; thread += 1) void puppet.send(call, thread);
    expect(await first.state()).toBe(V1.STOP_COPY);
    expect(await second.state()).toBe(V1.RUNNING);
    for (let thread = 64; thread <= 90; thread += 1) void puppet.send(call, thread);
    // no more can wait: calls stay with the kernel, and whatever is not trapped goes on
    const { pid } = puppet.run;
    expect((await puppet.call('getpid', [])).value).toBe(BigInt(pid));
    expect(readdirSync(`/proc/${pid}/task`).length).toBe(91);
    await sleep(300);
    expect(await puppet.run.supervisor()).toBe(supervisor);
    expect(puppet.run.stderr).not.toContain('takes over');
    puppet.run.signal('SIGKILL');
    expect(await puppet.run.ended(5000)).toEqual({ code: null, signal: 'SIGKILL' });
  });

  it('serves calls to their end under a storm of signals', { timeout: patient(60_000) }, async () => {
    const { puppet, first } = await open(['qat,block=3', 'qat']);
    await puppet.script(`handle ${SIGUSR1}; new calm 8`);
    await puppet.call('gettid', [], 2);
    const storm = puppet.script(`storm ${SIGUSR1} ${4000 * many} 30 2`, 1, 60_000);
    const loop = `loop 5000 ${nr('pread64')} ${first.fd} $calm 4 ${first.region}`;
    expect(await puppet.script(loop, 2)).toMatchObject({ value: 5000n, errno: 'OK' });
    await first.enter(V1.STOP_COPY, 2);
    expect(await first.read(16, 8, 2)).toBe(SECTION);
    expect((await storm).value).toBe(BigInt(4000 * many));
    expect((await puppet.script(`count ${SIGUSR1}`)).value).toBeGreaterThan(0n);
  });

  it.skipIf(!canMount || !AT_LENGTH)(
    'is told nothing of a file that happens to have the inode number of ours (with root)',
    { timeout: patient(120_000) }, // up to half a million files, one after the other
    async () => {
      const mount = 'mount -t tmpfs none /mnt && exec "$@"';
      const prefix = ['unshare', '-m', 'sh', '-c', mount, 'sh'];
      const { user, puppet, container, groups, first } = await open(['qat', 'qat'], { prefix });
      const { pid } = puppet.run;
      const ours = [container, groups[0] ?? -1, first.fd];
      const inode = (fd: number): number => statSync(`/proc/${pid}/fd/${fd}`).ino;
      const wanted = new Set(ours.map(inode));
      const before = readdirSync(`/proc/${pid}/root/mnt`);
      expect(before).toEqual([]);
      let met = 0;
      // a new tmpfs counts its inodes from the beginning
      for (let n = 0, last = 0; last < Math.max(...wanted); n += 1) {
        const path = `/proc/${pid}/root/mnt/file`;
        writeFileSync(path, '');
        last = statSync(path).ino;
        if (wanted.has(last)) {
          const fd = value(await user.open('/mnt/file'));
          expect((await user.ioctl(fd, VFIO_GET_API_VERSION)).errno).toBe('ENOTTY');
          expect((await user.ioctl(fd, VFIO_DEVICE_RESET)).errno).toBe('ENOTTY');
          await puppet.call('close', [fd]);
          met += 1;
        }
        unlinkSync(path);
        if (n > 500_000) return; // inode numbers of memfds are too large here to be met
      }
      expect(met).toBeGreaterThan(0);
    },
  );

  it('leaves nothing in the supervisor', async () => {
    const { puppet, user, first } = await open(['qat', 'qat', 'qat']);
    const supervisor = await puppet.run.supervisor();
    // of the threads that called last it keeps pidfds, as many as it will
    const count = (): number => openFiles(supervisor).filter((name) => !name.includes('pidfd')).length;
    // of shared memory: the rest is Node's, whose heap comes and goes
    const maps = (): number =>
      readFileSync(`/proc/${supervisor}/maps`, 'utf8')
        .split('\n')
        .filter((line) => line.includes('/memfd:')).length;
    await user.open('/dev/vfio/vfio');
    await user.mmap(first.fd, 4096, first.region + SECTION);
    const map = `${nr('mmap')} 0 4096 ${PROT_READ | PROT_WRITE} ${MAP_SHARED} ${first.fd} ${first.region + SECTION}`;
    const round = async (): Promise<void> => {
      await puppet.call('close', [value(await user.open('/dev/vfio/vfio'))]);
      await puppet.call('close', [value(await user.open('/dev/vfio/9002'))]);
      await puppet.script(`doomed 300 ${SIGKILL} loop 1000 ${map}`);
    };
    for (let last = -1, same = 0; same < 5; last = count()) {
      await sleep(200); // it rehearses first, with descriptors of its own, and is left alone meanwhile
      same = count() === last ? same + 1 : 0;
    }
    const [fds, mappings] = [count(), maps()];
    await puppet.script(`loop 200 ${map}`);
    for (let n = 0; n < 100; n += 1) await round();
    // what it holds of a child that was killed a moment ago it lets go when it looks next
    await poll(
      () => (count() === fds ? true : undefined),
      15_000,
      () => `${fds} files to be open, not ${count()}`,
    );
    expect(openFiles(supervisor).length - count()).toBeLessThanOrEqual(20);
    expect(mappings).toBeGreaterThan(0);
    expect(maps()).toBe(mappings);
    const children = readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, 'utf8');
    expect(children).toBe('');
    const names = readdirSync(`/proc/${puppet.run.pid}/fd`).map((fd) =>
      readlinkSync(`/proc/${puppet.run.pid}/fd/${fd}`),
    );
    const shared: string[] = names.filter((name) => name.includes('-data'));
    expect(new Set(shared).size, 'by which the section is mapped').toBe(1);
    expect(shared.length, 'one for each process that has mapped it, as its threads have the same').toBe(1);
  });
});
