import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { errnoNumber } from '../../../src/abi/errno.ts';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { SECCOMP_RET_USER_NOTIF } from '../../../src/abi/seccomp.ts';
import { bridgingFilter, emulationFilter } from '../../../src/interpose/trap/filter.ts';
import { BAR0_OFFSET, CONFIG_OFFSET, regionOffset } from '../../../src/interpose/run/window.ts';
import { arch } from '../../../src/sys/libc.ts';
import { BpfMachine } from '../../support/bpf-machine.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { because } from '../../support/host.ts';
import { lacks32Bit } from '../../support/host-programs.ts';

const WINDOW = { first: 0x3f00, last: 0x3fff };
const X32 = 0x4000_0000;
const I386 = { read: 3, ioctl: 54, dup: 41, mmap2: 192, openat: 295, pread64: 180 };

interface Call {
  readonly nr: number;
  readonly args: readonly bigint[];
}

const CONFIG = BigInt(CONFIG_OFFSET);
const BAR0 = BigInt(BAR0_OFFSET);

/** Calls that do no harm where they are not trapped: descriptors are closed, pointers null. */
function calls(): Call[] {
  const { syscalls } = arch;
  const names = Object.keys(syscalls) as (SyscallName | 'open' | 'dup2')[];
  const own = [CONFIG, CONFIG + 252n, CONFIG + 256n, BAR0, BAR0 + 0xf_fff8n, BAR0 + 0xf_fff9n, 10n << 40n];
  const offsets = [0n, regionOffset(0), regionOffset(255), regionOffset(0) - 1n, 2n ** 63n, 0x7657n << 48n, ...own];
  const fds = [-1n, 0x3effn, 0x3f00n, 0x3fffn, 0x4000n, 0x3f00n | (1n << 32n)];
  const all: [(typeof names)[number], bigint[]][] = [
    ...[0x3b63n, 0x3b64n, 0x3b75n, 0x3b94n, 0x3b95n, 0x5401n, 0x3b64n << 32n, 0x3b70n | (7n << 32n)].map(
      (command): [SyscallName, bigint[]] => ['ioctl', [-1n, command, 0n, 0x3b64n]],
    ),
    ...offsets.flatMap((offset): [SyscallName, bigint[]][] => [
      ['pread64', [-1n, 0n, 8n, offset]],
      ['pwrite64', [-1n, 0n, 8n, offset]],
      ['pread64', [-1n, 0n, 8n, 0n, offset, offset]],
      ['mmap', [0n, 0n, 0n, 1n, -1n, offset]],
      ['mmap', [0n, 0n, 0n, offset, -1n, 0n]],
      ['lseek', [-1n, offset, 0n, offset, 0n, offset]],
      ['preadv', [-1n, 0n, 0n, offset, offset]],
    ]),
    ...[0n, 1n, 2n, 3n, 0o2000002n, 2n << 32n, 2n | (2n << 32n)].flatMap((flags): [SyscallName, bigint[]][] => [
      ['openat', [-1n, 0n, flags, 0n]],
      ['open' as SyscallName, [0n, flags, 2n]],
    ]),
    ['openat2', [-1n, 0n, 0n, 0n]],
    ...fds.flatMap((fd) =>
      (['read', 'write', 'dup', 'dup2', 'dup3', 'fcntl', 'close', 'fstat', 'readv'] as const).map(
        (name): [SyscallName, bigint[]] => [name as SyscallName, [fd, 0n, 0n]],
      ),
    ),
    ['getpid', [0x3f00n, 0x3b64n, 2n, regionOffset(0), 0n, regionOffset(0)]],
  ];
  return all
    .filter(([name]) => names.includes(name))
    .map(([name, args]) => ({
      nr: syscalls[name as SyscallName],
      args: Array.from({ length: 6 }, (_, n) => BigInt.asUintN(64, args[n] ?? 0n)),
    }));
}

const FILTERS: [string, Uint8Array][] = [
  ['emulation, v1', emulationFilter(arch, { bar: 1 << 20, config: 256 })],
  ['emulation, v2', emulationFilter(arch, { bar: 1 << 20, config: 256 }, WINDOW)],
  ['bridging, v1', bridgingFilter(arch, true)],
  ['bridging, v2', bridgingFilter(arch, false, WINDOW)],
];
const EXDEV = errnoNumber('EXDEV');

/** What the victim says when it has made these calls under a filter. */
function victim(program: Uint8Array, input: readonly string[]): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'shim-filter-'));
  try {
    const file = join(directory, 'filter');
    writeFileSync(file, program);
    const text = input.map((line) => `${line}\n`).join('');
    const { status, stdout, stderr } = spawnSync(compiled('victim'), [file], { input: text, encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    return stdout.trim().split('\n');
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Every other way into the kernel is untouched: a line for each call, with whatever errno the kernel has for it. */
function expectUntouched(lines: readonly string[], count: number): void {
  expect(lines.length).toBe(count);
  for (const line of lines) expect(line).toMatch(/^\d+$/);
  for (const line of lines) expect(Number(line)).not.toBe(EXDEV);
}

describeWithCompiler('the filter in a real process', () => {
  it.each(FILTERS)('traps what it traps in software, with all arguments intact (%s)', (_, program) => {
    const own = calls();
    const machine = new BpfMachine(program);
    const lines = victim(
      program,
      own.map(({ nr, args }) => `${nr} ${args.join(' ')}`),
    );
    let trapped = 0;
    for (const { nr, args } of own) {
      if (machine.run({ nr, arch: arch.auditArch, args }) === SECCOMP_RET_USER_NOTIF) {
        expect(lines.shift()).toBe(`trapped ${nr} ${args.join(' ')}`);
        expect(lines.shift()).toBe(String(EXDEV));
        trapped += 1;
      } else expect(Number(lines.shift()), `${nr} ${args.join(' ')}`).not.toBe(EXDEV);
    }
    expect(lines).toEqual([]);
    expect(trapped).toBeGreaterThan(5);
    expect(trapped).toBeLessThan(own.length - 25);
  });

  it.skipIf(arch.name !== 'x64').each(FILTERS)('leaves calls of x32 programs alone (%s)', (_, program) => {
    const some = calls().slice(0, 40);
    const lines = victim(
      program,
      some.map(({ nr, args }) => `${nr | X32} ${args.join(' ')}`),
    );
    expectUntouched(lines, some.length);
  });

  const lacking = lacks32Bit();
  it.skipIf(lacking !== undefined).each(FILTERS)(
    `leaves calls of 32-bit programs alone (%s)${because(lacking)}`,
    (_, program) => {
      const some = Object.values(I386).map((nr) => `i386 ${nr} 16128 15204 2 2 0`);
      expectUntouched(victim(program, some), some.length);
    },
  );
});
