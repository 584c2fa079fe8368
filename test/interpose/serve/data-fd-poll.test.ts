import { expect, it } from 'vitest';
import { EPOLL_CTL_ADD } from '../../../src/abi/epoll.ts';
import { F_GETFL, F_SETFL, O_NONBLOCK, O_RDONLY, POLLIN, POLLOUT, pollfd } from '../../../src/abi/fcntl.ts';
import { iovec } from '../../../src/abi/ptrace.ts';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { VFIO_DEVICE_RESET, VFIO_MIG_GET_PRECOPY_INFO } from '../../../src/abi/vfio.ts';
import { vfio_precopy_info } from '../../../src/abi/vfio-v2.ts';
import { FIRST_RECORD_SIZE, image_extent, image_header, record_header } from '../../../src/sim/mlx5-format.ts';
import { arch } from '../../../src/sys/libc.ts';
import { V2 } from '../../../src/v2/states.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { callText, Puppet, type Argument, type Outcome } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { getState, setState } from '../../support/v2-puppet.ts';
import { BAR0_AT, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const POLLRDNORM = 0x40;
/** What mlx5vf_save_poll says of a data fd with something to read, of all that poll(2) can say. */
const READY = POLLIN | POLLRDNORM;
const ANY = 0xffdf;
const PIECE = 64 * 1024;
/** The firmware never ends, as far as a test goes. */
const NEVER = 'delay=1000000';
const [EPOLL_PWAIT, PSELECT6] = arch.name === 'x64' ? [281, 270] : [22, 72];

/** drivers/vfio/pci/mlx5/main.c of Linux 6.12: mlx5vf_save_poll. The calls that ask are not trapped. */
describeWithCompiler('poll(2) of the data fd of a presented mlx5', () => {
  const start = useShimRuns();

  async function open(spec: string): Promise<DevicePuppet> {
    const puppet = new Puppet(start([compiled('puppet')], { devices: [`mlx5,${spec}`], options: ['--present', 'v2'] }));
    const opened = await new VfioPuppet(puppet).openDevices();
    await puppet.memory('poll', pollfd.size);
    await puppet.memory('none', 16);
    await puppet.memory('data', PIECE);
    return opened.devices[0] as DevicePuppet;
  }

  /** What poll(2) says now, or once it says something. */
  async function poll({ user }: DevicePuppet, fd: number, wait: 'now' | 'until ready' = 'now'): Promise<number> {
    const { puppet } = user;
    await puppet.put('poll', pollfd.encode({ fd, events: ANY }));
    const timeout = wait === 'now' ? '$none' : 0;
    const outcome = await puppet.script(`${callText('ppoll', ['$poll', 1, timeout, 0, 8])}; get poll 0 ${pollfd.size}`);
    const { revents } = pollfd.decode(outcome.bytes);
    expect(value(outcome)).toBe(revents === 0 ? 0 : 1);
    return revents;
  }

  async function read({ user }: DevicePuppet, fd: number): Promise<Outcome> {
    return user.puppet.script(`${callText('read', [fd, '$data', PIECE])}; get data 0 ${PIECE}`);
  }

  async function errno({ user }: DevicePuppet, name: SyscallName | number, args: readonly Argument[]): Promise<string> {
    return (await user.puppet.call(name, args)).errno;
  }

  async function doNotBlock({ user }: DevicePuppet, fd: number): Promise<void> {
    value(await user.puppet.call('fcntl', [fd, F_SETFL, O_NONBLOCK]));
  }

  /** A saving data fd from which all was read that is there, while the firmware saves an image. */
  async function drained(device: DevicePuppet, state: (typeof V2)['PRE_COPY' | 'STOP_COPY']): Promise<number> {
    const fd = await setState(device, state);
    await doNotBlock(device, fd);
    expect(await poll(device, fd)).toBe(READY); // the first record
    expect(value(await read(device, fd))).toBe(24);
    return fd;
  }

  /** Kills the supervisor; settles when its successor has answered a call. */
  async function takeOver(device: DevicePuppet): Promise<void> {
    const { run } = device.user.puppet;
    const supervisor = await run.supervisor();
    killHard(supervisor);
    await run.supervisor(supervisor);
    await getState(device);
  }

  /** What a data fd gives until its end; with `polls`, read only when poll says that it is ready. */
  async function readAll(device: DevicePuppet, fd: number, polls: boolean): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    if (polls) await doNotBlock(device, fd);
    for (;;) {
      if (polls) expect(await poll(device, fd, 'until ready')).toBe(READY);
      const outcome = await read(device, fd);
      if (value(outcome) === 0) return Buffer.concat(pieces); // never EAGAIN
      pieces.push(outcome.bytes.subarray(0, value(outcome)));
    }
  }

  it('says nothing while the firmware saves, and then that there is something to read, up to the end', async () => {
    const device = await open('size=16K,delay=2000');
    const fd = await drained(device, V2.STOP_COPY);
    expect(await poll(device, fd)).toBe(0);
    expect((await read(device, fd)).errno).toBe('EAGAIN');
    expect(await poll(device, fd, 'until ready')).toBe(READY);
    expect(await poll(device, fd)).toBe(READY);
    expect(value(await read(device, fd))).toBeGreaterThan(16 * 1024);
    expect(await poll(device, fd), 'at the end').toBe(READY);
    expect(value(await read(device, fd))).toBe(0);
    expect(await poll(device, fd)).toBe(READY);
  });

  it('drives a reader that never blocks to the bytes that a blocking one gets', async () => {
    const spec = 'size=600K,seed=4,chunk=64K,delay=15';
    const blocking = await open(spec);
    const whole = await readAll(blocking, await setState(blocking, V2.STOP_COPY), false);
    expect(whole.length).toBeGreaterThan(600 * 1024);
    const polling = await open(spec);
    const fd = await setState(polling, V2.STOP_COPY);
    expect(await readAll(polling, fd, true)).toBeBytes(whole);
  });

  it('says nothing at the temporary end of pre-copy, until a query of it has made the firmware save', async () => {
    const device = await open('size=16K,initial=16K,delay=40');
    const { puppet } = device.user;
    const fd = await setState(device, V2.PRE_COPY);
    await doNotBlock(device, fd);
    const whole = FIRST_RECORD_SIZE + record_header.size + image_header.size + image_extent.size + 16 * 1024;
    for (let length = 0; length < whole; length += value(await read(device, fd))) {
      expect(await poll(device, fd, 'until ready')).toBe(READY);
    }
    for (let n = 0; n < 3; n += 1) {
      expect(await poll(device, fd)).toBe(0);
      expect((await read(device, fd)).errno).toBe('ENOMSG');
      value(await device.user.pwrite(device.fd, noise(16, n + 9), BAR0_AT));
      await puppet.put('data', vfio_precopy_info.encode({ argsz: vfio_precopy_info.size }));
      value(await puppet.call('ioctl', [fd, VFIO_MIG_GET_PRECOPY_INFO, '$data']));
      expect(await poll(device, fd, 'until ready')).toBe(READY);
      expect(value(await read(device, fd))).toBeGreaterThan(4096);
    }
  });

  it('says that a failure is there to be read, but not one that a read calls ENOMSG', async () => {
    const failing = await open('size=16K,delay=2000,fwerr=SAVE@1');
    const fd = await drained(failing, V2.STOP_COPY);
    expect(await poll(failing, fd, 'until ready')).toBe(READY);
    expect((await read(failing, fd)).errno).toBe('ENODEV');
    expect(await poll(failing, fd)).toBe(READY);

    const bad = await open('size=16K,fwerr=SAVE@1:state');
    const saving = await drained(bad, V2.PRE_COPY);
    expect(await poll(bad, saving)).toBe(0);
    expect((await read(bad, saving)).errno).toBe('ENOMSG');
    await setState(bad, V2.STOP_COPY);
    expect(await poll(bad, saving)).toBe(READY);
  });

  it('is ready for good when its session has ended, whatever comes after', async () => {
    const device = await open(`size=16K,${NEVER}`);
    const { puppet } = device.user;
    const before = await drained(device, V2.STOP_COPY);
    expect(await poll(device, before)).toBe(0);
    // who waits is woken
    await puppet.put('poll', pollfd.encode({ fd: before, events: POLLIN }));
    const waiting = puppet.call('ppoll', ['$poll', 1, 0, 0, 8], 1);
    await setState(device, V2.STOP);
    expect(value(await waiting)).toBe(1);
    expect(await poll(device, before)).toBe(READY);
    expect((await read(device, before)).errno).toBe('ENODEV');

    const resuming = await setState(device, V2.RESUMING);
    expect((await poll(device, resuming)) & (POLLIN | POLLOUT), 'it has no poll').toBe(POLLIN | POLLOUT);
    await setState(device, V2.STOP);

    const now = await drained(device, V2.STOP_COPY);
    expect([await poll(device, before), await poll(device, now)]).toEqual([READY, 0]);
    await takeOver(device);
    expect([await poll(device, before), await poll(device, now)]).toEqual([READY, 0]);
    expect([(await read(device, before)).errno, (await read(device, now)).errno]).toEqual(['ENODEV', 'EAGAIN']);
    value(await device.user.ioctl(device.fd, VFIO_DEVICE_RESET));
    expect([await poll(device, before), await poll(device, now)]).toEqual([READY, READY]);
  });

  it('tells the truth by a successor of a killed supervisor, and those who wait wait on', async () => {
    const device = await open('size=100K,seed=6,chunk=64K,delay=2000');
    const { puppet } = device.user;
    const fd = await drained(device, V2.STOP_COPY);
    await puppet.put('poll', pollfd.encode({ fd, events: ANY }));
    const script = `${callText('ppoll', ['$poll', 1, 0, 0, 8])}; get poll 0 ${pollfd.size}`;
    const waiting = puppet.script(script, 1);
    await takeOver(device);
    expect(pollfd.decode((await waiting).bytes).revents).toBe(READY);
    await takeOver(device);
    expect(await poll(device, fd)).toBe(READY);
    // the bytes are those of a device that nobody was killed over
    const rest = await readAll(device, fd, true);
    const other = await open('size=100K,seed=6,chunk=64K');
    const whole = await readAll(other, await setState(other, V2.STOP_COPY), false);
    expect(rest).toBeBytes(whole.subarray(24));
  });

  it('is what select and epoll say, once for each change if they are asked so', async () => {
    const device = await open('size=200K,chunk=64K,delay=1000');
    const { puppet } = device.user;
    await puppet.memory('event', 16);
    await puppet.memory('set', 128);
    const select = async (fd: number): Promise<number> => {
      const bytes = new Uint8Array(128);
      bytes[fd >> 3] = 1 << (fd & 7);
      await puppet.put('set', bytes);
      return value(await puppet.call(PSELECT6, [fd + 1, '$set', 0, 0, '$none', 0]));
    };
    const fd = await drained(device, V2.STOP_COPY);
    const low = value(
      await puppet.script(`${callText('pidfd_open', [puppet.run.pid, 0])}; ${callText('pidfd_getfd', ['$', fd, 0])}`),
    );
    expect(low, 'below what select can be asked').toBeLessThan(1024);
    const EPOLLET = 2 ** 31;
    const watches = async (flags: number): Promise<number> => {
      const epoll = value(await puppet.call('epoll_create1', [0]));
      await puppet.put('event', arch.epollEvent.encode({ events: POLLIN + flags, data: 5n }));
      value(await puppet.call('epoll_ctl', [epoll, EPOLL_CTL_ADD, fd, '$event']));
      return epoll;
    };
    const [level, edge] = [await watches(0), await watches(EPOLLET)];
    const has = async (epoll: number, timeout = 0): Promise<number> =>
      value(await puppet.call(EPOLL_PWAIT, [epoll, '$event', 1, timeout, 0, 8]));

    expect(await has(level, -1)).toBe(1);
    expect([await has(level), await has(level), await has(edge), await has(edge)]).toEqual([1, 1, 1, 0]);
    expect(await select(low)).toBe(1);
    for (let n = 0; n < 2; n += 1) {
      while ((await errno(device, 'read', [fd, '$data', PIECE])) === 'OK') continue;
      expect([await has(level), await has(edge), await select(low)]).toEqual([0, 0, 0]);
      expect(await has(edge, -1)).toBe(1);
      expect([await has(edge), await has(level), await select(low)]).toEqual([0, 1, 1]);
    }
  });

  it('is that of each of its descriptors, and one that cannot be trapped reads nothing', async () => {
    const device = await open(`size=16K,${NEVER}`);
    const { puppet } = device.user;
    const fd = await setState(device, V2.STOP_COPY);
    const copy = value(await puppet.call('dup', [fd]));
    expect(copy).toBe(fd + 1);
    const away = value(
      await puppet.script(`${callText('pidfd_open', [puppet.run.pid, 0])}; ${callText('pidfd_getfd', ['$', fd, 0])}`),
    );
    for (const one of [fd, copy, away]) expect(await poll(device, one)).toBe(READY);
    for (const call of ['read', 'write'] as const) expect(await errno(device, call, [away, '$data', 8])).toBe('EINVAL');
    expect(await puppet.call('read', [copy, '$data', 8])).toMatchObject({ value: 8n });
    // of a child, which has the descriptor too
    expect(await puppet.script(`fork ${callText('read', [fd, '$data', 64])}`)).toMatchObject({ value: 16n });
    for (const one of [fd, copy, away]) expect(await poll(device, one)).toBe(0);
    value(await puppet.call('close', [fd]));
    expect(await poll(device, copy)).toBe(0);
    await setState(device, V2.RUNNING);
    for (const one of [copy, away]) expect(await poll(device, one)).toBe(READY);
  });

  it('is of a file as the driver has, with flags, without a position', async () => {
    const device = await open(`size=16K,${NEVER}`);
    const { puppet } = device.user;
    const fd = await setState(device, V2.STOP_COPY);
    const flags = async (): Promise<number> => value(await puppet.call('fcntl', [fd, F_GETFL, 0]));
    expect(await flags()).toBe(O_RDONLY);
    await doNotBlock(device, fd);
    expect(await flags()).toBe(O_RDONLY | O_NONBLOCK);
    const at = await puppet.memory('iov', iovec.size);
    await puppet.put('iov', iovec.encode({ iov_base: at, iov_len: 8n }));
    for (const [name, args, expected] of [
      ['lseek', [fd, 0, 1], 'ESPIPE'],
      ['pread64', [fd, '$data', 16, 0], 'ESPIPE'],
      ['preadv', [fd, '$iov', 1, 0, 0], 'ESPIPE'],
      ['splice', [fd, 0, fd, 0, 16, 0], 'EINVAL'],
      ['write', [fd, '$data', 16], 'EBADF'],
    ] as [SyscallName, Argument[], string][]) {
      expect(await errno(device, name, args), name).toBe(expected);
    }
    expect(value(await read(device, fd))).toBe(24);
  });

  it('is told by a successor, however many epoll files the VM has put above it', async () => {
    const device = await open(`size=16K,${NEVER}`);
    const { puppet } = device.user;
    const fd = await drained(device, V2.STOP_COPY);
    await puppet.memory('event', 16);
    const nest = `${callText('epoll_create1', [0])}; ${callText('epoll_ctl', ['$', EPOLL_CTL_ADD, fd, '$event'])}`;
    const last = await puppet.script(Array.from({ length: 600 }, () => nest).join('; '));
    expect(last.errno, 'more than the kernel lets there be').toBe('EINVAL');
    await takeOver(device);
    expect(await poll(device, fd)).toBe(0);
    expect((await read(device, fd)).errno).toBe('EAGAIN');
    await setState(device, V2.RUNNING);
    expect(await poll(device, fd)).toBe(READY);
  });

  it('makes no data fd of an epoll file of the VM’s own, at whatever number', async () => {
    const device = await open(`size=16K,${NEVER}`);
    const { puppet } = device.user;
    const own = value(await puppet.call('epoll_create1', [0]));
    const high = 0x3f20;
    value(await puppet.call('dup3', [own, high, 0]));
    expect(await errno(device, 'read', [high, '$data', 8])).toBe('EINVAL');
    expect(await puppet.call('lseek', [high, 0, 1])).toMatchObject({ errno: 'OK', value: 0n });
    expect(value(await puppet.call('dup', [high])), 'an ordinary duplicate').toBeLessThan(1024);
    const fd = await setState(device, V2.STOP_COPY);
    value(await puppet.call('epoll_ctl', [high, EPOLL_CTL_ADD, fd, '$none']));
    expect(await errno(device, 'read', [high, '$data', 8])).toBe('EINVAL');
    expect(value(await read(device, fd))).toBe(24);
  });
});
