import { describe, expect, test } from 'vitest';
import { ARCH, AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64, user_pt_regs, user_regs_struct } from '../../src/abi/index.ts';

describe('ARCH', () => {
  test.each(['x64', 'arm64'] as const)('%s carries its own name', (name) => {
    expect(ARCH[name].name).toBe(name);
  });

  test('has the audit number that a filter compares', () => {
    expect([ARCH.x64.auditArch, ARCH.arm64.auditArch]).toEqual([0xc000_003e, 0xc000_00b7]);
    expect([AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64]).toEqual([0xc000_003e, 0xc000_00b7]);
  });

  test('numbers the calls that every architecture has alike from 424 on', () => {
    for (const name of ['pidfd_send_signal', 'pidfd_open', 'close_range', 'openat2', 'pidfd_getfd'] as const) {
      expect(ARCH.x64.syscalls[name]).toBe(ARCH.arm64.syscalls[name]);
    }
  });

  test('has the old calls on x86-64 alone', () => {
    expect([ARCH.x64.syscalls.open, ARCH.x64.syscalls.dup2, ARCH.x64.syscalls.poll]).toEqual([2, 33, 7]);
    expect([ARCH.arm64.syscalls.open, ARCH.arm64.syscalls.dup2]).toEqual([undefined, undefined]);
  });

  test('has the flags of open(2) that the two number differently', () => {
    expect(ARCH.x64.openFlags).toEqual({
      O_DIRECTORY: 0x1_0000,
      O_NOFOLLOW: 0x2_0000,
      O_DIRECT: 0x4000,
      O_LARGEFILE: 0x8000,
    });
    expect(ARCH.arm64.openFlags).toEqual({
      O_DIRECTORY: 0x4000,
      O_NOFOLLOW: 0x8000,
      O_DIRECT: 0x1_0000,
      O_LARGEFILE: 0x2_0000,
    });
  });

  test('has the instruction: syscall, and svc #0 (0xd4000001)', () => {
    expect(ARCH.x64.syscallInstruction).toEqual([0x0f, 0x05]);
    expect(Buffer.from(ARCH.arm64.syscallInstruction).readUInt32LE()).toBe(0xd400_0001);
  });

  test.each(['x64', 'arm64'] as const)('%s gives each call a number of its own', (name) => {
    const numbers = Object.values(ARCH[name].syscalls);
    expect(new Set(numbers).size).toBe(numbers.length);
  });
});

/** syscall(2), tables "Architecture calling conventions". */
describe('registers', () => {
  test('of x86-64 are rax, rdi, rsi, rdx, r10, r8, r9', () => {
    const bytes = user_regs_struct.encode({
      rax: 9n,
      rdi: 1n,
      rsi: 2n,
      rdx: 3n,
      r10: 4n,
      r8: 5n,
      r9: 6n,
      rip: 7n,
      rsp: 8n,
    });
    expect(ARCH.x64.registers.decode(bytes)).toEqual({
      number: 9n,
      arg0: 1n,
      arg1: 2n,
      arg2: 3n,
      arg3: 4n,
      arg4: 5n,
      arg5: 6n,
      result: 9n,
      pc: 7n,
      sp: 8n,
    });
  });

  test('of aarch64 are x8 and x0 to x5', () => {
    const bytes = user_pt_regs.encode({
      regs0: 1n,
      regs1: 2n,
      regs2: 3n,
      regs3: 4n,
      regs4: 5n,
      regs5: 6n,
      regs8: 222n,
      pc: 7n,
      sp: 8n,
    });
    expect(ARCH.arm64.registers.decode(bytes)).toEqual({
      number: 222n,
      arg0: 1n,
      arg1: 2n,
      arg2: 3n,
      arg3: 4n,
      arg4: 5n,
      arg5: 6n,
      result: 1n,
      pc: 7n,
      sp: 8n,
    });
  });

  test('of aarch64 lie one after the other: x0 to x30, sp, pc, pstate', () => {
    const names = [...Array.from({ length: 31 }, (_, i) => `regs${i}`), 'sp', 'pc', 'pstate'];
    expect(Object.entries(user_pt_regs.fields)).toEqual(names.map((name, i) => [name, ['u64', 8 * i]]));
  });

  test('fill the register sets of the kernel', () => {
    expect([ARCH.x64.registers.size, ARCH.arm64.registers.size]).toEqual([216, 272]);
  });

  test('name the call to be restarted only where the general set holds it', () => {
    expect([ARCH.x64.originalNumberOffset, ARCH.arm64.originalNumberOffset]).toEqual([120, undefined]);
  });
});
