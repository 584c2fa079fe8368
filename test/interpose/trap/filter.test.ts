import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ARCH, AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64, type Arch } from '../../../src/abi/arch.ts';
import { SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF } from '../../../src/abi/seccomp.ts';
import * as iommufd from '../../../src/abi/iommufd.ts';
import * as vfio from '../../../src/abi/vfio-ioctl.ts';
import { bridgingFilter, emulationFilter, lookNumbers } from '../../../src/interpose/trap/filter.ts';
import { regionOffset } from '../../../src/interpose/run/window.ts';
import { BpfMachine } from '../../support/bpf-machine.ts';
import { isTrapped } from '../../support/filter-model.ts';

const AUDIT_ARCH_I386 = 0x4000_0003;
const AUDIT_ARCH_ARM = 0x4000_0028;
const X32 = 0x4000_0000;
const WINDOW = { first: 0x3f00, last: 0x3fff };
const SMALL = { bar: 0x10_0000, config: 256 };
/** Reads of config space are recorded, and no BAR0 is so small that the filter can tell its end. */
const LARGE = { bar: 2 ** 31, config: 0 };
const filters = [
  { name: 'x64, v1', arch: ARCH.x64, dataFds: undefined, regions: SMALL },
  { name: 'x64, v2', arch: ARCH.x64, dataFds: WINDOW, regions: SMALL },
  { name: 'arm64, v1', arch: ARCH.arm64, dataFds: undefined, regions: SMALL },
  { name: 'arm64, v2', arch: ARCH.arm64, dataFds: WINDOW, regions: SMALL },
  { name: 'x64, v2, recorded, large', arch: ARCH.x64, dataFds: WINDOW, regions: LARGE },
  {
    name: 'arm64, v1, 4096 bytes of config space',
    arch: ARCH.arm64,
    dataFds: undefined,
    regions: { ...SMALL, config: 4096 },
  },
];

describe.each(filters)('emulationFilter ($name)', ({ arch, dataFds, regions }) => {
  const machine = new BpfMachine(emulationFilter(arch, regions, dataFds, { looks: true }));
  const { syscalls } = arch as Arch & { syscalls: { open?: number } };

  function trapped(nr: number, args: readonly (number | bigint)[] = [], audit: number = arch.auditArch): boolean {
    const result = machine.run({ nr, arch: audit, args: Array.from({ length: 6 }, (_, n) => BigInt(args[n] ?? 0)) });
    expect([SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF]).toContain(result);
    return result === SECCOMP_RET_USER_NOTIF;
  }

  it('traps every ioctl of linux/vfio.h and linux/iommufd.h, whatever the high half of its number, and no other', () => {
    const numbers = Object.entries({ ...vfio, ...iommufd }).flatMap(([name, value]) =>
      typeof value === 'number' && value > 0x3b00 && name !== 'VFIO_BASE' ? [value] : [],
    );
    expect(numbers.length).toBeGreaterThan(30);
    for (const number of numbers) {
      expect(trapped(syscalls.ioctl, [3, number])).toBe(true);
      expect(trapped(syscalls.ioctl, [-1, BigInt(number) | (0xffff_ffffn << 32n)])).toBe(true);
    }
    expect(trapped(syscalls.ioctl, [3, 0x4018_aee1])).toBe(true); // KVM_SET_DEVICE_ATTR
    for (const number of [0, 0x3b63, 0x3b95, 0x4018_aee0, 0x4018_aee2, 0x5401, 0xae80, 0x3b640000, 0xffff_ffff]) {
      expect(trapped(syscalls.ioctl, [3, number])).toBe(false);
      expect(trapped(syscalls.ioctl, [3, BigInt(number) | (0x3b64n << 32n)])).toBe(false);
    }
  });

  it('traps what is done in regions and in the window', () => {
    const places = [1n << 40n, (7n << 40n) - 1n, 8n << 40n, 10n << 40n, 1000n << 40n];
    const inWindow = [regionOffset(0), regionOffset(255) + 2n ** 40n - 1n, regionOffset(7) + 4096n];
    const elsewhere = [0n, (1n << 40n) - 1n, 0x700n, 0x900n, 0x7656_0000n, -1n, -(2n ** 63n)];
    const { pread64, preadv, preadv2, pwrite64, pwritev, pwritev2, mmap } = syscalls;
    for (const nr of [pread64, preadv, preadv2, pwrite64, pwritev, pwritev2]) {
      for (const offset of [...places, ...inWindow]) expect(trapped(nr, [0, 0, 0, offset])).toBe(true);
      for (const offset of elsewhere) expect(trapped(nr, [0, 0, 0, offset])).toBe(false);
      expect(trapped(nr, [0, 0, 0, 0, 7n << 40n, 7n << 40n])).toBe(false);
    }
    for (const nr of [preadv, preadv2, pwritev, pwritev2])
      for (const offset of [7n << 40n, 9n << 40n]) expect(trapped(nr, [0, 0, 0, offset])).toBe(true);
    for (const whence of [0, 1, 2]) {
      for (const offset of [...places, 7n << 40n, 9n << 40n, ...inWindow])
        expect(trapped(syscalls.lseek, [0, offset, whence])).toBe(true);
      for (const offset of elsewhere) expect(trapped(syscalls.lseek, [0, offset, whence])).toBe(false);
    }
    for (const offset of [...places, 7n << 40n, 9n << 40n, ...inWindow])
      expect(trapped(mmap, [0, 0, 0, 0, 0, offset])).toBe(true);
    for (const offset of elsewhere) expect(trapped(mmap, [0, 4096, 3, 1, 0, offset])).toBe(false);
  });

  it('leaves alone what ends within BAR0, and is read within config space', () => {
    const { pread64, pwrite64 } = syscalls;
    const { bar, config } = regions;
    const isLarge = bar >= 2 ** 31;
    const own = [
      { at: 9n << 40n, size: bar, read: isLarge, written: isLarge },
      { at: 7n << 40n, size: config, read: config === 0, written: true },
    ];
    for (const { at, size, read, written } of own) {
      const end = BigInt(size);
      const within = [
        [0n, 0n],
        [0n, 4n],
        [0n, end],
        [end - 1n, 1n],
        [end, 0n],
      ] as const;
      for (const [offset, count] of size > 0 ? within : []) {
        expect(trapped(pread64, [3, 0, count, at + offset]), `${count} at ${offset}`).toBe(read);
        expect(trapped(pwrite64, [3, 0, count, at + offset]), `${count} at ${offset}`).toBe(written);
      }
      const over = [
        [0n, end + 1n],
        [end, 1n],
        [end - 1n, 2n],
        [end + 1n, 0n],
        [4n, 0xffff_fffcn],
        [4n, 0xffff_ffffn],
        [0n, 1n << 32n],
        [0n, 1n << 63n],
        [0xffff_ffffn, 1n],
        [1n << 32n, 4n],
      ] as const;
      for (const [offset, count] of size > 0 ? over : [])
        for (const nr of [pread64, pwrite64])
          expect(trapped(nr, [3, 0, count, at + offset]), `${nr}: ${count} at ${offset}`).toBe(true);
    }
    if (dataFds !== undefined)
      for (const at of [7n << 40n, 9n << 40n]) expect(trapped(pread64, [dataFds.first, 0, 4, at])).toBe(true);
  });

  it('traps opening for reading and writing alone', () => {
    const opens: [number, number][] = [[syscalls.openat, 2]];
    if (syscalls.open !== undefined) opens.push([syscalls.open, 1]);
    for (const [call, at] of opens) {
      const flags = (value: number | bigint): bigint[] =>
        Array.from({ length: 6 }, (_, n) => (n === at ? BigInt(value) : 2n));
      for (const value of [2, 0o2000002, 0o102, 0xffff_fff2n, (5n << 32n) | 2n]) {
        expect(trapped(call, flags(value))).toBe(true);
      }
      for (const value of [0, 1, 3, 0o2000000, 2n << 32n]) expect(trapped(call, flags(value))).toBe(false);
    }
  });

  it('traps opening directories too, if they are to be listed', () => {
    const { O_DIRECTORY } = arch.openFlags;
    const listing = new BpfMachine(emulationFilter(arch, regions, dataFds, { lists: true }));
    const opens: [number, number][] = [[syscalls.openat, 2]];
    if (syscalls.open !== undefined) opens.push([syscalls.open, 1]);
    for (const [nr, at] of opens) {
      const run = (value: number): number =>
        listing.run({
          nr,
          arch: arch.auditArch,
          args: Array.from({ length: 6 }, (_, n) => BigInt(n === at ? value : 0)),
        });
      for (const flags of [2, O_DIRECTORY, O_DIRECTORY | 0o2000000, O_DIRECTORY | 1]) {
        expect(run(flags)).toBe(SECCOMP_RET_USER_NOTIF);
      }
      for (const flags of [0, 1, 0o2000000]) expect(run(flags)).toBe(SECCOMP_RET_ALLOW);
      expect(trapped(nr, [0, 0, 0, 0, 0, 0].with(at, O_DIRECTORY))).toBe(false);
    }
  });

  it('traps what is done to data fds, whichever argument they are, and nothing to other descriptors', () => {
    const { read, write, readv, writev, preadv, preadv2, pwritev, pwritev2, lseek, dup, dup3, fcntl } = syscalls;
    const onOne = [read, write, readv, writev, preadv, preadv2, pwritev, pwritev2, lseek, dup, dup3, fcntl];
    const onTwo: [number, number][] = [
      [syscalls.sendfile, 1],
      [syscalls.splice, 2],
      [syscalls.copy_file_range, 2],
    ];
    const ours = [WINDOW.first, WINDOW.last, WINDOW.first + 0x80];
    const others = [0, 3, WINDOW.first - 1, WINDOW.last + 1, 0xffff_ffff];
    for (const nr of onOne) {
      for (const fd of ours) expect(trapped(nr, [fd])).toBe(dataFds !== undefined);
      for (const fd of others) expect(trapped(nr, [fd, WINDOW.first])).toBe(false);
    }
    for (const [nr, second] of onTwo) {
      for (const fd of ours) {
        expect(trapped(nr, [fd])).toBe(dataFds !== undefined);
        expect(trapped(nr, [3, 3, 3].with(second, fd))).toBe(dataFds !== undefined);
      }
      for (const fd of others) expect(trapped(nr, [3, 3, 3].with(second, fd))).toBe(false);
    }
  });

  it('leaves other architectures, x32 and numbers that do not exist to the kernel', () => {
    const other = arch.auditArch === AUDIT_ARCH_X86_64 ? AUDIT_ARCH_AARCH64 : AUDIT_ARCH_X86_64;
    for (const nr of Object.values(syscalls)) {
      const args = [0x3f00, 0x3b64, 2, regionOffset(0), 0, regionOffset(0)];
      for (const audit of [other, AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0]) expect(trapped(nr, args, audit)).toBe(false);
      expect(trapped(nr | X32, args)).toBe(false);
    }
    expect(trapped(-1, [0x3f00, 0x3b64, 2, regionOffset(0), 0, regionOffset(0)])).toBe(false);
  });

  // Before the random calls: these do not come everywhere each time.
  it('has no instruction that the tables above do not run', () => {
    const all = Array.from({ length: machine.length }, (_, at) => at);
    expect(all.filter((at) => !machine.covered.has(at))).toEqual([]);
  });

  it('does what it is for, whatever the call', () => {
    const known = Object.values(syscalls);
    const nr = fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...known) }, fc.integer({ min: -1, max: 600 }));
    const edges = [
      0n,
      1n,
      2n,
      3n,
      0x11n,
      0x21n,
      0x802n,
      0x3b63n,
      0x3b64n,
      0x3b94n,
      0x3b95n,
      0x4018_aee1n,
      0x3effn,
      0x3f00n,
      0x3fffn,
      0x4000n,
    ];
    const argument = fc
      .tuple(
        fc.constantFrom(...edges),
        fc.constantFrom(0n, 0xffn, 0x100n, 0x700n, 0x7656_0000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn),
      )
      .map(([low, high]) => (high << 32n) | low);
    const sizes = [regions.bar, regions.config].flatMap((size) => [size - 1, size, size + 1].map(BigInt));
    const inRegion = fc
      .constantFrom(7n << 40n, 9n << 40n)
      .chain((at) => fc.constantFrom(...sizes, 4n).map((n) => at + n));
    const any = fc.oneof(
      { weight: 3, arbitrary: argument },
      { weight: 2, arbitrary: inRegion },
      fc.constantFrom(...sizes),
      fc.bigInt(0n, 2n ** 64n - 1n),
    );
    const args = fc.array(any, {
      minLength: 6,
      maxLength: 6,
    });
    const audit = fc.oneof({ weight: 9, arbitrary: fc.constant(arch.auditArch) }, fc.constantFrom(AUDIT_ARCH_I386, 0));
    const seen = { trapped: 0, allowed: 0 };
    fc.assert(
      fc.property(nr, args, audit, (number, values, auditArch) => {
        const call = { nr: number, arch: auditArch, args: values };
        const expected = isTrapped(call, arch, regions, dataFds);
        seen[expected ? 'trapped' : 'allowed'] += 1;
        return (machine.run(call) === SECCOMP_RET_USER_NOTIF) === expected;
      }),
      { numRuns: 10_000 },
    );
    expect(seen.trapped).toBeGreaterThan(100);
    expect(seen.allowed).toBeGreaterThan(100);
  });

  it('is short on the way of calls that are not ours', () => {
    const one = new BpfMachine(emulationFilter(arch, regions, dataFds));
    one.run({ nr: syscalls.getpid, arch: arch.auditArch, args: [0n, 0n, 0n, 0n, 0n, 0n] });
    expect(one.covered.size).toBeLessThan(45);
  });

  it('leaves looking at files to the kernel if it is not wanted', () => {
    const one = new BpfMachine(emulationFilter(arch, regions, dataFds));
    for (const nr of lookNumbers(arch))
      expect(one.run({ nr, arch: arch.auditArch, args: [3n, 0n, 0n, 0n, 0n, 0n] })).toBe(SECCOMP_RET_ALLOW);
  });
});

const bridging = filters.flatMap((one) => [true, false].map((dirtyPages) => ({ ...one, dirtyPages })));

describe.each(bridging)(
  'bridgingFilter ($name, dirty pages: $dirtyPages)',
  ({ arch, dataFds, regions, dirtyPages }) => {
    const machine = new BpfMachine(bridgingFilter(arch, dirtyPages, dataFds));
    const { syscalls } = arch as Arch & { syscalls: { open?: number } };

    function trapped(nr: number, args: readonly (number | bigint)[] = []): boolean {
      const values = Array.from({ length: 6 }, (_, n) => BigInt(args[n] ?? 0));
      return machine.run({ nr, arch: arch.auditArch, args: values }) === SECCOMP_RET_USER_NOTIF;
    }

    it('traps the few ioctls that serve, and leaves DMA mappings, interrupts and all others to the kernel', () => {
      const always = [
        vfio.VFIO_GROUP_GET_DEVICE_FD,
        vfio.VFIO_DEVICE_GET_INFO,
        vfio.VFIO_DEVICE_GET_REGION_INFO,
        vfio.VFIO_DEVICE_RESET,
      ];
      const forV2 = [vfio.VFIO_DEVICE_FEATURE, vfio.VFIO_MIG_GET_PRECOPY_INFO];
      const forDirtyPages = [vfio.VFIO_GROUP_SET_CONTAINER, vfio.VFIO_IOMMU_DIRTY_PAGES];
      const expected = new Set([
        ...always,
        ...(dataFds === undefined ? [] : forV2),
        ...(dirtyPages ? forDirtyPages : []),
      ]);
      for (let number = 0x3b60; number < 0x3b90; number += 1) {
        expect(trapped(syscalls.ioctl, [3, number]), `0x${number.toString(16)}`).toBe(expected.has(number));
        expect(trapped(syscalls.ioctl, [3, BigInt(number) | (7n << 32n)])).toBe(expected.has(number));
      }
      for (const number of [vfio.VFIO_DEVICE_SET_IRQS, vfio.VFIO_IOMMU_MAP_DMA, vfio.VFIO_IOMMU_UNMAP_DMA]) {
        expect(expected.has(number)).toBe(false);
      }
    });

    it('traps accesses in the window, and data fds, as with emulated devices; opening files and looking at them is not trapped', () => {
      const emulation = new BpfMachine(emulationFilter(arch, regions, dataFds));
      const opens = new Set([syscalls.openat, syscalls.openat2, syscalls.open, ...lookNumbers(arch)]);
      const atOffsets = new Set<number>([syscalls.pread64, syscalls.pwrite64, syscalls.mmap]);
      const offsets = [0n, regionOffset(0), regionOffset(31) + 5n, regionOffset(255) + 2n ** 40n];
      let seen = 0;
      for (const nr of Object.values(syscalls)) {
        if (nr === syscalls.ioctl) continue;
        for (const fd of [3, WINDOW.first, WINDOW.last, WINDOW.last + 1]) {
          for (const offset of offsets) {
            const args = [BigInt(fd), 2n, 4n, offset, 0n, offset];
            const onDataFd = { nr, arch: arch.auditArch, args: [BigInt(fd), 2n, 4n, 0n, 0n, 0n] };
            const isOnDataFd = !opens.has(nr) && emulation.run(onDataFd) === SECCOMP_RET_USER_NOTIF;
            const expected = isOnDataFd || (atOffsets.has(nr) && offset >> 48n === 0x7656n);
            expect(trapped(nr, args)).toBe(expected);
            if (expected) seen += 1;
          }
        }
      }
      expect(seen).toBeGreaterThan(20);
      for (const nr of Object.values(syscalls))
        // config space is the kernel's
        if (nr !== syscalls.ioctl) expect(trapped(nr, [3n, 7n << 40n, 2n, 7n << 40n, 0n, 7n << 40n])).toBe(false);
    });
  },
);
