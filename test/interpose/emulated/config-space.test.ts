import { expect, it } from 'vitest';
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  vfio_region_info,
} from '../../../src/abi/vfio.ts';
import { pciConfig } from '../../../src/sim/pci.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import { killHard } from '../../../src/vmm/child.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { Puppet } from '../../support/puppet.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { value, VfioPuppet, type DevicePuppet } from '../../support/vfio-puppet.ts';

const SPEC = 'qat,size=1M';
const CONFIG = BigInt(VFIO_PCI_CONFIG_REGION_INDEX) << 40n;
const COMMAND = CONFIG + 4n;
const BAR0 = CONFIG + 0x10n;
const BAR2 = BigInt(VFIO_PCI_BAR2_REGION_INDEX) << 40n;
const ROM = CONFIG + 0x30n;
const ONES = Uint8Array.of(0xff, 0xff, 0xff, 0xff);
const SEEK_SET = 0;

/** What capabilities hold of ones that are written to all of them, which resets the device: MSI's flags, address and data; DEVCTL and DEVCTL2. */
const WRITTEN_CAPABILITIES: readonly (readonly [at: number, byte: number])[] = [
  [0x4a, 0x8e],
  ...[0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55].map((at) => [at, 0xff] as const),
  [0x74, 0xff],
  [0x75, 0x78],
  [0x94, 0x10],
];

/** What a user finds: memory is decoded. */
function opened(): Uint8Array {
  const config = pciConfig(parseSpec(SPEC));
  config[4] = 2;
  return config;
}

/** drivers/vfio/pci/vfio_pci_config.c of Linux 6.12, as a program sees it. */
describeWithCompiler('the config space of an emulated device', () => {
  const start = useShimRuns();

  async function open(): Promise<{ user: VfioPuppet; device: DevicePuppet; groups: readonly number[] }> {
    const user = new VfioPuppet(new Puppet(start([compiled('puppet')], { devices: [SPEC], json: true })));
    const { groups, devices } = await user.openDevices();
    return { user, groups, device: devices[0] as DevicePuppet };
  }

  const read = async (user: VfioPuppet, fd: number, at: bigint, length: number): Promise<Uint8Array> => {
    const { errno, bytes } = await user.pread(fd, length, at);
    expect(errno).toBe('OK');
    return bytes;
  };

  it('has BARs that size as they are, and no ROM', async () => {
    const { user, device } = await open();
    for (const at of [BAR0, ROM]) expect(value(await user.pwrite(device.fd, ONES, at))).toBe(4);
    expect(await read(user, device.fd, BAR0, 4)).toBeBytes(Uint8Array.of(0, 0, 0xf0, 0xff));
    expect(await read(user, device.fd, ROM, 4)).toBeBytes(new Uint8Array(4));
    expect(value(await user.pwrite(device.fd, Uint8Array.of(0, 0, 0x12, 0xfe), BAR0))).toBe(4);
    expect(await read(user, device.fd, BAR0, 4)).toBeBytes(Uint8Array.of(0, 0, 0x10, 0xfe));
  });

  it('keeps what it is, and has a successor of the supervisor keep it', async () => {
    const { user, device } = await open();
    const all = new Uint8Array(256).fill(0xff);
    expect(value(await user.pwrite(device.fd, all, CONFIG))).toBe(256);
    const expected = opened();
    for (const [at, byte] of [
      [4, 0x46],
      [5, 0x05],
      [12, 0xff],
      [13, 0xff],
      [0x12, 0xf0],
      [0x13, 0xff],
      [0x19, 0xf0],
      [0x1a, 0xff],
      [0x1b, 0xff],
      [0x3c, 0xff],
      ...WRITTEN_CAPABILITIES,
    ] as const)
      expected[at] = byte;
    expect(await read(user, device.fd, CONFIG, 256)).toBeBytes(expected);
    killHard(await user.puppet.run.supervisor());
    expect(value(await user.pwrite(device.fd, Uint8Array.of(0, 0), COMMAND))).toBe(2);
    expected.set([0, 0], 4);
    expect(await read(user, device.fd, CONFIG, 256)).toBeBytes(expected);
  });

  it('is written the same by pwritev and pwritev2, and by no other way', async () => {
    const { user, device } = await open();
    const { puppet } = user;
    const at = await puppet.memory('bytes', 4);
    await puppet.put('bytes', Uint8Array.of(0x06, 0x04, 0xff, 0xff));
    const vectors = await puppet.memory('vectors', 32);
    await puppet.put('vectors', new Uint8Array(new BigUint64Array([at, 1n, at + 1n, 1n]).buffer));
    for (const call of ['pwritev', 'pwritev2'] as const) {
      value(await user.pwrite(device.fd, Uint8Array.of(0, 0), COMMAND));
      expect(value(await puppet.call(call, [device.fd, vectors, 2, COMMAND, 0, 0])), call).toBe(2);
      expect(await read(user, device.fd, COMMAND, 2), call).toBeBytes(Uint8Array.of(0x06, 0x04));
    }
    expect((await puppet.call('lseek', [device.fd, CONFIG, SEEK_SET])).errno).toBe('ESPIPE');
    expect((await user.mmap(device.fd, 4096, CONFIG)).errno).toBe('EINVAL');
  });

  it('is read without a trap, and as it is after each change, whoever serves', async () => {
    const { user, device } = await open();
    const { run } = user.puppet;
    const before = await run.supervisor();
    const command = async (): Promise<Uint8Array> => read(user, device.fd, COMMAND, 2);
    const written = [Uint8Array.of(6, 4), Uint8Array.of(2, 0), Uint8Array.of(6, 0)] as const;
    for (const bytes of written) {
      value(await user.pwrite(device.fd, bytes, COMMAND));
      expect(await command()).toBeBytes(bytes);
    }
    process.kill(before, 'SIGSTOP'); // nobody answers
    for (let at = 0n; at < 256n; at += 4n) await read(user, device.fd, CONFIG + at, 4);
    killHard(before);
    await run.supervisor(before);
    expect(await command()).toBeBytes(written[2]);
    value(await user.pwrite(device.fd, written[0], COMMAND));
    expect(await command()).toBeBytes(written[0]);
  });

  it('ends where it ends', async () => {
    const { user, device } = await open();
    expect((await user.pwrite(device.fd, ONES, CONFIG + 254n)).errno).toBe('EFAULT');
    expect((await user.pwrite(device.fd, ONES, CONFIG + 256n)).errno).toBe('EFAULT');
    expect((await user.puppet.call('pwrite64', [device.fd, 0, 4, COMMAND])).errno).toBe('EFAULT');
    expect(await read(user, device.fd, CONFIG, 256)).toBeBytes(opened());
  });

  it.each(['auto', 'v2'])('has nothing behind it, nor in BARs that there are not (%s)', async (present) => {
    const run = start([compiled('puppet')], { devices: [SPEC], options: ['--present', present] });
    const user = new VfioPuppet(new Puppet(run));
    const { fd } = (await user.openDevices()).devices[0] as DevicePuppet;
    const at = await user.puppet.memory('bytes', 16);
    const vector = await user.puppet.memory('vector', 16);
    await user.puppet.put('vector', new Uint8Array(new BigUint64Array([at, 4n]).buffer));
    const regions = [1n, 5n, 6n, 8n, 10n, 255n].map((index) => (index << 40n) + 16n);
    for (const offset of regions) {
      expect((await user.pread(fd, 4, offset)).errno, `read at ${offset}`).toBe('EINVAL');
      expect((await user.pwrite(fd, ONES, offset)).errno, `write at ${offset}`).toBe('EINVAL');
      for (const call of ['preadv', 'preadv2', 'pwritev', 'pwritev2'] as const)
        expect((await user.puppet.call(call, [fd, vector, 1, offset, 0, 0])).errno, call).toBe('EINVAL');
      expect((await user.mmap(fd, 4096, offset & ~0xfffn)).errno).toBe('EINVAL');
    }
    const far = CONFIG + 2n ** 32n;
    expect([await user.pread(fd, 4, far), await user.pwrite(fd, ONES, far)].map(({ errno }) => errno)).toEqual([
      'EFAULT',
      'EFAULT',
    ]);
  });

  it('is as it was for who opens the device next', async () => {
    const { user, device, groups } = await open();
    value(await user.pwrite(device.fd, Uint8Array.of(6, 0), COMMAND));
    value(await user.pwrite(device.fd, ONES, BAR0));
    value(await user.puppet.call('close', [device.fd]));
    const next = value(await user.ioctl(groups[0] ?? -1, VFIO_GROUP_GET_DEVICE_FD, Buffer.from('0000:90:00.0\0')));
    expect(await read(user, next, CONFIG, 256)).toBeBytes(opened());
  });

  it('has a BAR for MSI-X, whose table is not to be read or written', async () => {
    const { user, device } = await open();
    const { puppet } = user;
    const { flags, size, offset } = vfio_region_info.decode((await device.regionInfo(2)).bytes);
    expect({ flags, size, offset }).toEqual({ flags: 3, size: 4096n, offset: BAR2 });
    const whole = new Uint8Array(4096).fill(0xff, 0, 64);
    expect(await read(user, device.fd, BAR2, 4096)).toBeBytes(whole);
    expect(value(await user.pwrite(device.fd, new Uint8Array(4096).fill(0x5a), BAR2))).toBe(4096);
    expect(await read(user, device.fd, BAR2, 4096)).toBeBytes(whole);
    expect(value(await user.pread(device.fd, 8, BAR2 + 4092n))).toBe(4);
    expect(value(await user.pwrite(device.fd, new Uint8Array(8), BAR2 + 4092n))).toBe(4);
    for (const at of [BAR2 + 4096n, BAR2 + 2n ** 32n]) {
      expect((await user.pread(device.fd, 4, at)).errno).toBe('EINVAL');
      expect((await user.pwrite(device.fd, ONES, at)).errno).toBe('EINVAL');
    }
    expect((await user.mmap(device.fd, 4096, BAR2)).errno).toBe('EINVAL');
    const bytes = await puppet.memory('bytes', 16);
    const vectors = await puppet.memory('vectors', 32);
    await puppet.put('vectors', new Uint8Array(new BigUint64Array([bytes, 3n, bytes + 8n, 5n]).buffer));
    for (const call of ['preadv', 'preadv2'] as const) {
      await puppet.put('bytes', new Uint8Array(16).fill(0x11));
      expect(value(await puppet.call(call, [device.fd, vectors, 2, BAR2 + 60n, 0, 0])), call).toBe(8);
      expect(await puppet.get('bytes', 16), call).toBeBytes(
        Uint8Array.of(255, 255, 255, 17, 17, 17, 17, 17, 255, 0, 0, 0, 0, 17, 17, 17),
      );
    }
    expect((await puppet.call('pread64', [device.fd, 0, 4, BAR2])).errno).toBe('EFAULT');
  });

  it('is without memory where COMMAND turns it off, and in D3hot: of the BAR of MSI-X only the table is there', async () => {
    const { user, device } = await open();
    const PM_CTRL = CONFIG + 0x44n;
    const [table, rest] = [BAR2 + 60n, BAR2 + 64n];
    const errnos = async (): Promise<string[]> => {
      const outcomes = [
        await user.pread(device.fd, 4, table),
        await user.pwrite(device.fd, ONES, table),
        await user.pread(device.fd, 8, table),
        await user.pread(device.fd, 4, rest),
        await user.pwrite(device.fd, ONES, rest),
      ];
      return outcomes.map(({ errno }) => errno);
    };
    const [all, none] = [Array.from({ length: 5 }, () => 'OK'), ['OK', 'OK', 'EIO', 'EIO', 'EIO']];
    expect(await errnos()).toEqual(all);
    for (const [at, off, on] of [
      [COMMAND, 0, 2],
      [PM_CTRL, 3, 0],
    ] as const) {
      value(await user.pwrite(device.fd, Uint8Array.of(off, 0), at));
      expect(await errnos()).toEqual(none);
      value(await user.pwrite(device.fd, Uint8Array.of(on, 0), at));
      expect(await errnos()).toEqual(all);
    }
  });
});
