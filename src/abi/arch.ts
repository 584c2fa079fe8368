import { user_pt_regs, user_regs_struct } from './ptrace.ts';
import { struct, type Struct } from './struct.ts';
import { arm64Syscalls, x64Syscalls, type Syscalls } from './syscalls.ts';

/** `struct seccomp_data.arch` (linux/audit.h): ELF machine, 64 bits 0x80000000, little endian 0x40000000. */
export const AUDIT_ARCH_X86_64 = 0xc000_003e;
export const AUDIT_ARCH_AARCH64 = 0xc000_00b7;

/** The architectures this package knows, as Node's `process.arch` names them. */
export type ArchName = 'x64' | 'arm64';

/** What a system call needs of the general registers: each role's place in the architecture's NT_PRSTATUS register set. */
export type RegisterRole = 'number' | 'arg0' | 'arg1' | 'arg2' | 'arg3' | 'arg4' | 'arg5' | 'result' | 'pc' | 'sp';
/** The registers of a system call: a u64 at each role. */
export type SyscallRegisters = Struct<Readonly<Record<RegisterRole, readonly ['u64', number]>>>;

/** All that differs between the architectures. */
export interface Arch {
  readonly name: ArchName;
  readonly auditArch: number;
  readonly syscalls: Syscalls;
  /** View of the NT_PRSTATUS register set by role. `number` is where a call's number goes before the instruction runs. */
  readonly registers: SyscallRegisters;
  /**
   * Byte offset of the u64 in that set that says which call is to be restarted (x86-64: `orig_rax`; all ones for none).
   * aarch64 keeps it in a set of its own, `NT_ARM_SYSTEM_CALL`.
   */
  readonly originalNumberOffset: number | undefined;
  /** The instruction that makes a system call, which `pc` has passed while the call is blocked. */
  readonly syscallInstruction: readonly number[];
  /** `struct epoll_event` (linux/eventpoll.h), which x86-64 alone packs. */
  readonly epollEvent: Struct<{ readonly events: readonly ['u32', 0]; readonly data: readonly ['u64', 4 | 8] }>;
  /** Flags of open(2) whose numbers differ (asm/fcntl.h); the others are in fcntl.ts. */
  readonly openFlags: {
    readonly O_DIRECTORY: number;
    readonly O_NOFOLLOW: number;
    readonly O_DIRECT: number;
    readonly O_LARGEFILE: number;
  };
}

const x = user_regs_struct.fields;
const a = user_pt_regs.fields;

export const ARCH: Readonly<Record<ArchName, Arch>> = {
  x64: {
    name: 'x64',
    auditArch: AUDIT_ARCH_X86_64,
    syscalls: x64Syscalls,
    registers: struct('user_regs_struct', user_regs_struct.size, {
      number: x.rax,
      arg0: x.rdi,
      arg1: x.rsi,
      arg2: x.rdx,
      arg3: x.r10,
      arg4: x.r8,
      arg5: x.r9,
      result: x.rax,
      pc: x.rip,
      sp: x.rsp,
    }),
    originalNumberOffset: x.orig_rax[1],
    syscallInstruction: [0x0f, 0x05],
    epollEvent: struct('epoll_event', 12, { events: ['u32', 0], data: ['u64', 4] }),
    openFlags: { O_DIRECTORY: 0o200000, O_NOFOLLOW: 0o400000, O_DIRECT: 0o40000, O_LARGEFILE: 0o100000 },
  },
  arm64: {
    name: 'arm64',
    auditArch: AUDIT_ARCH_AARCH64,
    syscalls: arm64Syscalls,
    registers: struct('user_pt_regs', user_pt_regs.size, {
      number: a.regs8,
      arg0: a.regs0,
      arg1: a.regs1,
      arg2: a.regs2,
      arg3: a.regs3,
      arg4: a.regs4,
      arg5: a.regs5,
      result: a.regs0,
      pc: a.pc,
      sp: a.sp,
    }),
    originalNumberOffset: undefined,
    syscallInstruction: [0x01, 0x00, 0x00, 0xd4],
    epollEvent: struct('epoll_event', 16, { events: ['u32', 0], data: ['u64', 8] }),
    openFlags: { O_DIRECTORY: 0o40000, O_NOFOLLOW: 0o100000, O_DIRECT: 0o200000, O_LARGEFILE: 0o400000 },
  },
};
