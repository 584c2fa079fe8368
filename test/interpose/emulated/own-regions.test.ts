import { expect, it } from 'vitest';
import { F_ADD_SEALS, F_SEAL_WRITE, SEEK_CUR, SEEK_END, SEEK_SET } from '../../../src/abi/fcntl.ts';
import {
  MAP_DENYWRITE,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_SHARED_VALIDATE,
  PROT_READ,
  PROT_WRITE,
} from '../../../src/abi/mman.ts';
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  vfio_device_bind_iommufd,
} from '../../../src/abi/vfio.ts';
import { pciConfig } from '../../../src/sim/pci.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { arch, PAGE_SIZE } from '../../../src/sys/libc.ts';
import { noise } from '../../support/bytes.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { because, lacksIoUring } from '../../support/host.ts';
import { lacks32Bit } from '../../support/host-programs.ts';
import { callText, Puppet, type Argument, type Outcome } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { BAR0_AT, value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SPEC = 'qat,size=1M,seed=3';
const NODE = '/dev/vfio/devices/vfio0';
const BAR = 1024 * 1024;
const END = BAR0_AT + BigInt(BAR);
const CONFIG = BigInt(VFIO_PCI_CONFIG_REGION_INDEX) << 40n;
const VGA = BigInt(VFIO_PCI_VGA_REGION_INDEX) << 40n;
const PAGE = BigInt(PAGE_SIZE);
const RW = PROT_READ | PROT_WRITE;

/** Config space as it is when the device is opened: with memory on in COMMAND. */
function opened(): Uint8Array {
  const config = pciConfig(parseSpec(SPEC));
  config[4] = 2;
  return config;
}

/** asm/unistd.h. */
const NUMBERS = {
  x64: { mremap: 25, remap_file_pages: 216, fallocate: 285 },
  arm64: { mremap: 216, remap_file_pages: 234, fallocate: 47 },
} as const;
const { mremap, remap_file_pages, fallocate } = NUMBERS[arch.name];
const MREMAP_MAYMOVE = 1;
const FALLOC_FL_KEEP_SIZE = 1;
const PUNCH_HOLE = 2 | FALLOC_FL_KEEP_SIZE;

/** What a program sees of a device that is a file: an honest one, and one that looks for a way around. */
describeWithCompiler('the regions of an emulated device', () => {
  const start = useShimRuns();

  interface Open {
    readonly user: VfioPuppet;
    readonly puppet: Puppet;
    readonly device: DevicePuppet;
    readonly fd: number;
    readonly pipe: readonly [reader: number, writer: number];
    /** A file that is no device, of 1 MiB. */
    readonly other: number;
    /** Sets the memory `$offset`. */
    readonly offset: (at: bigint) => Promise<Argument>;
    readonly errnoOf: (...call: Parameters<Puppet['call']>) => Promise<string>;
  }

  async function open(options: readonly string[] = []): Promise<Open> {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [SPEC], options: [...options] })));
    const { puppet } = user;
    const device = (await user.openDevices()).devices[0] as DevicePuppet;
    const ends = await puppet.script(`new ends 8; ${callText('pipe2', ['$ends', 0])}; get ends 0 8`);
    const [reader = -1, writer = -1] = new Int32Array(ends.bytes.buffer);
    await puppet.memory('name', 8);
    const other = value(await puppet.call('memfd_create', ['$name', 0]));
    value(await puppet.call('ftruncate', [other, BAR]));
    await puppet.memory('offset', 8);
    await puppet.memory('data', 65536);
    await puppet.put('data', noise(64, 8));
    const iov = await puppet.memory('iov', 16);
    const data = (await puppet.script('new vector 64')).value;
    await puppet.put('vector', noise(64, 8));
    await puppet.put('iov', new Uint8Array(new BigUint64Array([data, 64n]).buffer));
    expect(iov).not.toBe(0n);
    return {
      user,
      puppet,
      device,
      fd: device.fd,
      pipe: [reader, writer],
      other,
      offset: async (at) => {
        await puppet.put('offset', new Uint8Array(new BigUint64Array([at]).buffer));
        return '$offset';
      },
      errnoOf: async (...call) => (await puppet.call(...call)).errno,
    };
  }

  const map = async ({ puppet, fd }: Open, length: bigint | number, prot: number, flags: number, at: bigint | number) =>
    puppet.call('mmap', [0, length, prot, flags, fd, at]);

  /** Whether the puppet has a byte at an address, which the kernel says of a write from there. */
  const isThere = async ({ puppet, pipe }: Open, address: bigint): Promise<string> =>
    (await puppet.call('write', [pipe[1], address, 1])).errno;

  const bytesOf = async ({ user, fd }: Open, at: bigint, length: number): Promise<Uint8Array> => {
    const { errno, bytes } = await user.pread(fd, length, at);
    expect(errno).toBe('OK');
    return bytes;
  };

  /** Nothing but BAR0, and what is seen of config space until its next change, can have changed, and nobody has become larger. */
  async function expectUntouched(it: Open, first64: Uint8Array): Promise<void> {
    const { user, puppet, fd } = it;
    const at = (await puppet.script('new config 256')).value;
    await puppet.put('iov', new Uint8Array(new BigUint64Array([at, 256n]).buffer));
    expect((await puppet.call('preadv', [fd, '$iov', 1, CONFIG, 0])).value).toBe(256n);
    expect(await puppet.get('config', 256), 'config space').toBeBytes(opened());
    expect(value(await user.pwrite(fd, opened().subarray(4, 6), CONFIG + 4n))).toBe(2);
    expect(await bytesOf(it, CONFIG, 256), 'config space, as it is seen').toBeBytes(opened());
    expect(await bytesOf(it, BAR0_AT, 64)).toBeBytes(first64);
    expect((await user.pread(fd, 64, END)).errno).toBe('EINVAL');
  }

  it('have no position that could be moved to one of them: lseek is ESPIPE, and works on other files', async () => {
    const it = await open();
    for (const at of [1n << 40n, CONFIG, VGA, BAR0_AT, END, it.device.region, 2n ** 62n])
      for (const whence of [SEEK_SET, SEEK_CUR, SEEK_END])
        expect(await it.errnoOf('lseek', [it.fd, at, whence]), `${at}, ${whence}`).toBe('ESPIPE');
    // in steps it comes elsewhere: behind BAR0 there is nothing to read, and nothing can be written
    const first = await bytesOf(it, BAR0_AT, 64);
    for (const [to, whence] of [
      [0n, SEEK_END],
      [(1n << 40n) - 1n, SEEK_END],
      [(1n << 40n) - 1n, SEEK_CUR],
    ] as const) {
      expect((await it.puppet.call('lseek', [it.fd, to, whence])).errno).toBe('OK'); // vfio-pci: ESPIPE
      expect((await it.puppet.call('read', [it.fd, '$data', 64])).value).toBe(0n);
      for (const [name, buffer, count] of [
        ['write', '$data', 64],
        ['writev', '$iov', 1],
      ] as const)
        expect(await it.errnoOf(name, [it.fd, buffer, count]), `${name} at ${to}`).toBe('EPERM');
    }
    // and before it nothing that is the device's
    await it.puppet.put('data', noise(64, 7));
    expect((await it.puppet.call('lseek', [it.fd, 0, SEEK_SET])).errno).toBe('OK');
    for (let tib = 0n; tib < 9n; tib += 1n) {
      expect((await it.puppet.call('write', [it.fd, '$data', 64])).value).toBe(64n);
      expect((await it.puppet.call('lseek', [it.fd, (1n << 40n) - 64n, SEEK_CUR])).errno).toBe('OK');
    }
    await expectUntouched(it, first);
    expect((await it.puppet.call('lseek', [it.other, 8, SEEK_SET])).value).toBe(8n);
    expect((await it.puppet.call('lseek', [it.other, 8, SEEK_CUR])).value).toBe(16n);
    expect((await it.puppet.call('lseek', [it.other, -1, SEEK_END])).value).toBe(BigInt(BAR - 1));
    expect(await it.errnoOf('lseek', [it.other, -1, SEEK_SET])).toBe('EINVAL');
    expect(await it.errnoOf('lseek', [it.pipe[0], 0, SEEK_CUR])).toBe('ESPIPE');
    expect(await it.errnoOf('lseek', [999, 0, SEEK_CUR])).toBe('EBADF');
  });

  it('are read and written at the position from BAR0 on, and no further than its end', async () => {
    const it = await open();
    const first = await bytesOf(it, BAR0_AT, 64);
    const read = await it.puppet.script(`${callText('read', [it.fd, '$data', 64])}; get data 0 64`);
    expect(read.bytes).toBeBytes(first);
    // up to the end of BAR0, in pieces as a loop of reads makes them, and on
    for (let at = 64; at < BAR; at += 65536) {
      const length = Math.min(65536, BAR - at);
      expect((await it.puppet.call('read', [it.fd, '$data', 65536])).value).toBe(BigInt(length));
    }
    for (const [name, args] of [
      ['read', [it.fd, '$data', 64]],
      ['readv', [it.fd, '$iov', 1]],
    ] as const)
      expect((await it.puppet.call(name, args)).value, name).toBe(0n); // vfio-pci: EINVAL
    await it.puppet.put('data', noise(64, 8));
    for (const [name, args] of [
      ['write', [it.fd, '$data', 64]],
      ['writev', [it.fd, '$iov', 1]],
    ] as const)
      expect(await it.errnoOf(name, args), name).toBe('EPERM'); // vfio-pci: EINVAL
    await expectUntouched(it, first);
  });

  it('are cut at the end of BAR0 as vfio-pci cuts them', async () => {
    const it = await open();
    const { user, puppet, fd } = it;
    expect(value(await user.pwrite(fd, noise(64, 5), END - 8n))).toBe(8);
    expect((await user.pread(fd, 64, END - 8n)).value).toBe(8n);
    expect(await bytesOf(it, END - 8n, 8)).toBeBytes(noise(64, 5).subarray(0, 8));
    await puppet.put('vector', noise(64, 6));
    for (const name of ['pwritev', 'pwritev2'] as const)
      expect((await puppet.call(name, [fd, '$iov', 1, END - 12n, 0, 0])).value, name).toBe(12n);
    expect(await bytesOf(it, END - 12n, 12)).toBeBytes(noise(64, 6).subarray(0, 12));
    await puppet.put('vector', new Uint8Array(64));
    for (const name of ['preadv', 'preadv2'] as const) {
      expect((await puppet.call(name, [fd, '$iov', 1, END - 12n, 0, 0])).value, name).toBe(12n);
      expect((await puppet.get('vector', 64)).subarray(0, 12), name).toBeBytes(noise(64, 6).subarray(0, 12));
    }
    // from the begin to behind the end, by pieces of memory that are not all there
    expect(await it.errnoOf('pwrite64', [fd, '$data', 2 * BAR, BAR0_AT])).toBe('EFAULT');
    expect(await it.errnoOf('pwrite64', [fd, 1, 64, END - 8n])).toBe('EFAULT');
    expect(await it.errnoOf('pread64', [fd, 1, 64, END - 8n])).toBe('EFAULT');
    for (const at of [END, END + 4096n, BAR0_AT + (1n << 32n), BAR0_AT + (1n << 40n) - 4096n]) {
      expect((await user.pread(fd, 4, at)).errno, `${at}`).toBe('EINVAL');
      expect((await user.pwrite(fd, noise(4, 1), at)).errno, `${at}`).toBe('EINVAL');
      for (const name of ['preadv', 'preadv2', 'pwritev', 'pwritev2'] as const)
        expect(await it.errnoOf(name, [fd, '$iov', 1, at, 0, 0]), `${name} at ${at}`).toBe('EINVAL');
    }
  });

  it('are of as many bytes as their own device has, which others have less of', async () => {
    const run = start([compiled('puppet')], { devices: ['qat,size=64K,seed=1', 'qat,size=1M,seed=2,config=4096'] });
    const user = new VfioPuppet(new Puppet(run));
    const [small, large] = (await user.openDevices(2)).devices as [DevicePuppet, DevicePuppet];
    await user.puppet.memory('data', 65536);
    for (const { device, size, config } of [
      { device: small, size: 65536n, config: 256n },
      { device: large, size: BigInt(BAR), config: 4096n },
    ]) {
      const end = BAR0_AT + size;
      const bytes = noise(64, Number(config));
      expect(value(await user.pwrite(device.fd, bytes, end - 64n))).toBe(64);
      expect((await user.pread(device.fd, 64, end - 64n)).bytes).toBeBytes(bytes);
      expect((await user.pread(device.fd, 64, end - 60n)).value).toBe(60n);
      expect((await user.pread(device.fd, 4, end)).errno).toBe('EINVAL');
      expect((await user.pread(device.fd, 4, CONFIG + config - 4n)).value).toBe(4n);
      expect((await user.pread(device.fd, 4, CONFIG + config)).errno).toBe('EFAULT');
      expect(value(await user.mmap(device.fd, Number(size), BAR0_AT))).not.toBe(0);
    }
  });

  it('say what vfio-pci says of bytes that are none', async () => {
    const it = await open();
    for (const at of [0n, BAR0_AT, END, END + 4n, 1n << 40n, CONFIG, CONFIG + 256n, VGA, 10n << 40n, 200n << 40n]) {
      expect(value(await it.puppet.call('pread64', [it.fd, '$data', 0, at])), `read at ${at}`).toBe(0);
      expect(value(await it.puppet.call('pwrite64', [it.fd, '$data', 0, at])), `write at ${at}`).toBe(0);
      expect((await map(it, 0, RW, MAP_SHARED, at)).errno, `mmap at ${at}`).toBe('EINVAL');
    }
  });

  it('refuse what is behind config space, as they read it and as they write it', async () => {
    const it = await open();
    for (const [at, length] of [
      [CONFIG + 254n, 4],
      [CONFIG + 256n, 1],
      [CONFIG, 257],
      [CONFIG + 4096n, 4],
      [VGA - 4n, 4],
    ] as const) {
      expect((await it.user.pread(it.fd, length, at)).errno, `read at ${at}`).toBe('EFAULT');
      expect((await it.user.pwrite(it.fd, new Uint8Array(length), at)).errno, `write at ${at}`).toBe('EFAULT');
    }
    for (const name of ['preadv', 'preadv2', 'pwritev', 'pwritev2'] as const)
      expect(await it.errnoOf(name, [it.fd, '$iov', 1, CONFIG + 200n, 0, 0]), name).toBe('EFAULT');
    expect(await it.errnoOf('pread64', [it.fd, 1, 4, CONFIG])).toBe('EFAULT');
    await it.puppet.put('vector', new Uint8Array(64));
    for (const name of ['preadv', 'preadv2'] as const) {
      expect((await it.puppet.call(name, [it.fd, '$iov', 1, CONFIG, 0, 0])).value, name).toBe(64n);
      expect(await it.puppet.get('vector', 64), name).toBeBytes(opened().subarray(0, 64));
    }
  });

  it.each(['auto', 'v2'])('are no others than there are, wherever (%s)', async (present) => {
    const it = await open(['--present', present]);
    const places = [VGA, VGA + 0x3b0n, VGA + 0xa_0000n, 10n << 40n, 255n << 40n, 256n << 40n, 1n << 62n];
    for (const at of places) {
      expect((await it.user.pread(it.fd, 4, at)).errno, `read at ${at}`).toBe('EINVAL');
      expect((await it.user.pwrite(it.fd, new Uint8Array(4), at)).errno, `write at ${at}`).toBe('EINVAL');
      for (const name of ['preadv', 'preadv2', 'pwritev', 'pwritev2'] as const)
        expect(await it.errnoOf(name, [it.fd, '$iov', 1, at, 0, 0]), `${name} at ${at}`).toBe('EINVAL');
      for (const type of [MAP_SHARED, MAP_PRIVATE])
        expect((await map(it, 4096, RW, type, at & ~0xffffn)).errno, `mmap at ${at}`).toBe('EINVAL');
    }
  });

  it('are mapped shared and within BAR0 alone', async () => {
    const it = await open();
    const end = BigInt(BAR);
    for (const [length, at] of [
      [end + PAGE, BAR0_AT],
      [end, BAR0_AT + PAGE],
      [PAGE, END],
      [PAGE, END + PAGE],
      [end + 1n, BAR0_AT],
      [(1n << 46n) - 1n, BAR0_AT],
      [PAGE, CONFIG],
      [3n << 40n, CONFIG], // BAR0 is within it
      [PAGE, BAR0_AT - PAGE],
      [PAGE, BAR0_AT + (1n << 40n) - PAGE],
      [PAGE, 2n << 40n],
    ] as const)
      for (const prot of [RW, PROT_READ])
        for (const flags of [MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE])
          expect((await map(it, length, prot, flags, at)).errno, `${length} at ${at}, ${prot}, ${flags}`).toBe(
            'EINVAL',
          );
    for (const prot of [RW, PROT_READ])
      for (const flags of [MAP_PRIVATE, MAP_PRIVATE | MAP_DENYWRITE])
        expect((await map(it, BAR, prot, flags, BAR0_AT)).errno).toBe('EINVAL');
    const whole = BigInt(value(await map(it, BAR, RW, MAP_SHARED, BAR0_AT)));
    const last = BigInt(value(await map(it, 1, RW, MAP_SHARED_VALIDATE, END - PAGE)));
    expect(await it.user.peek(last, 64)).toBeBytes(await it.user.peek(whole + end - PAGE, 64));
    // others' files are mapped as ever
    for (const flags of [MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE])
      value(await it.puppet.call('mmap', [0, BAR, RW, flags, it.other, 0]));
    expect(await it.errnoOf('mmap', [0, 4096, RW, MAP_SHARED, 999, 0])).toBe('EBADF');
    expect(await it.errnoOf('mmap', [0, 4096, PROT_READ, MAP_SHARED, it.pipe[0], 0])).toBe('ENODEV');
  });

  it('are not for a descriptor of a node of its own that is not bound', async () => {
    const run = start([compiled('puppet')], { devices: [SPEC], options: ['--iommufd'] });
    const user = new VfioPuppet(new Puppet(run));
    const iommufd = value(await user.open('/dev/iommu'));
    const fd = value(await user.open(NODE));
    const other = value(await user.open(NODE));
    const errnos = async (of: number): Promise<string[]> => {
      const outcomes = [
        await user.pwrite(of, new Uint8Array(2), CONFIG + 4n),
        await user.pread(of, 4, 2n << 40n),
        await user.pread(of, 64, END - 4n),
        await user.pwrite(of, new Uint8Array(64), END - 4n),
        await user.mmap(of, 4096, BAR0_AT),
        await user.puppet.call('lseek', [of, CONFIG, SEEK_SET]),
      ];
      return outcomes.map(({ errno }) => errno);
    };
    const denied = ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'ESPIPE'];
    expect((await user.pread(fd, 4, CONFIG)).errno).toBe('OK'); // vfio-pci: EINVAL
    expect(await errnos(fd)).toEqual(denied);
    const { size } = vfio_device_bind_iommufd;
    const bind = vfio_device_bind_iommufd.encode({ argsz: size, flags: 0, iommufd, out_devid: 0 });
    value(await user.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, bind));
    expect(await errnos(fd)).toEqual(['OK', 'OK', 'OK', 'OK', 'OK', 'ESPIPE']);
    expect(await errnos(other)).toEqual(denied);
    const duplicate = value(await user.puppet.call('dup', [fd]));
    value(await user.puppet.call('close', [fd]));
    expect((await user.pread(duplicate, 4, CONFIG)).errno).toBe('OK');
  });

  const WAYS = [
    { way: 'uring', lacking: lacksIoUring() },
    { way: 'int80', lacking: lacks32Bit() },
  ];
  for (const { way, lacking } of WAYS)
    it.skipIf(lacking !== undefined)(
      `give way to no call that passes the filter: ${way}${because(lacking)}`,
      async () => {
        const run = start([compiled('around'), way], { devices: [SPEC] });
        expect(await run.ended(), run.describe()).toEqual({ code: 0, signal: null });
      },
    );

  it('give way to nobody who looks for another way to them', async () => {
    const it = await open();
    const { puppet, fd, pipe, other, offset, errnoOf } = it;
    const first = await bytesOf(it, BAR0_AT, 64);
    const end = BigInt(BAR);
    const moved = async (name: string, outcome: Outcome): Promise<void> => {
      expect(outcome.errno === 'OK' ? outcome.value : 0n, name).toBe(0n);
    };
    // a mapping that grows, or is moved along its file, is none behind BAR0
    const one = BigInt(value(await map(it, BAR, RW, MAP_SHARED, BAR0_AT)));
    const grown = BigInt(value(await puppet.call(mremap, [one, BAR, 2 * BAR, MREMAP_MAYMOVE])));
    expect([await isThere(it, grown + end - 1n), await isThere(it, grown + end)]).toEqual(['OK', 'EFAULT']);
    value(await puppet.call(remap_file_pages, [grown, PAGE, 0, END / PAGE, 0]));
    expect(await isThere(it, grown)).toBe('EFAULT');
    // and before it one of what is seen of config space at most
    value(await puppet.call(remap_file_pages, [grown, PAGE, 0, CONFIG / PAGE, 0]));
    await it.user.poke(grown, noise(256, 4));
    expect(await bytesOf(it, CONFIG, 256)).toBeBytes(noise(256, 4));
    await expectUntouched(it, first);
    // descriptors that are opened anew are of the same file
    const again = value(await it.user.open(`/proc/self/fd/${fd}`));
    expect(await errnoOf('lseek', [again, CONFIG, SEEK_CUR])).toBe('ESPIPE');
    expect((await it.user.pwrite(again, noise(4, 1), CONFIG + 254n)).errno).toBe('EFAULT');
    // and no call moves bytes to or from where there are none
    for (const at of [END, END + PAGE, BAR0_AT + (1n << 40n), it.device.region]) {
      await moved('sendfile', await puppet.call('sendfile', [pipe[1], fd, await offset(at), 64]));
      await moved('splice', await puppet.call('splice', [fd, await offset(at), pipe[1], 0, 64, 0]));
      await moved('copy', await puppet.call('copy_file_range', [fd, await offset(at), other, 0, 64, 0]));
      value(await puppet.call('write', [pipe[1], '$data', 64]));
      await moved('splice in', await puppet.call('splice', [pipe[0], 0, fd, await offset(at), 64, 0]));
      await moved('copy in', await puppet.call('copy_file_range', [other, 0, fd, await offset(at), 64, 0]));
      expect(await errnoOf(fallocate, [fd, 0, at, PAGE]), `fallocate at ${at}`).toBe('EPERM');
      expect(await errnoOf('ftruncate', [fd, at + PAGE]), `ftruncate at ${at}`).toBe('EPERM');
    }
    // or to what is the device's but BAR0
    for (const at of [0n, 1n << 40n, CONFIG, CONFIG + 4n, VGA]) {
      value(await puppet.call('splice', [pipe[0], 0, fd, await offset(at), 64, 0]));
      value(await puppet.call('write', [pipe[1], '$data', 64]));
      value(await puppet.call('copy_file_range', [other, 0, fd, await offset(at), 64, 0]));
    }
    await expectUntouched(it, first);
    value(await puppet.call(fallocate, [fd, PUNCH_HOLE, 0, BAR0_AT]));
    for (const size of [0n, BAR0_AT, END - PAGE]) expect(await errnoOf('ftruncate', [fd, size])).toBe('EPERM');
    expect(await errnoOf('fcntl', [fd, F_ADD_SEALS, F_SEAL_WRITE])).toBe('EPERM');
    await expectUntouched(it, first);
  });
});
