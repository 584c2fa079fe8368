import { struct } from './struct.ts';

/** Requests of ptrace(2) (linux/ptrace.h; SEIZE, INTERRUPT, LISTEN 3.4; GET_SYSCALL_INFO 5.3). */
export const PTRACE_PEEKDATA = 2;
export const PTRACE_POKEDATA = 5;
export const PTRACE_CONT = 7;
export const PTRACE_SINGLESTEP = 9;
/** x86-64 only (asm/ptrace-abi.h); aarch64 has GETREGSET and SETREGSET. */
export const PTRACE_GETREGS = 12;
export const PTRACE_SETREGS = 13;
export const PTRACE_DETACH = 17;
export const PTRACE_SYSCALL = 24;
export const PTRACE_SETOPTIONS = 0x4200;
export const PTRACE_GETEVENTMSG = 0x4201;
export const PTRACE_GETSIGINFO = 0x4202;
export const PTRACE_GETREGSET = 0x4204;
export const PTRACE_SETREGSET = 0x4205;
export const PTRACE_SEIZE = 0x4206;
export const PTRACE_INTERRUPT = 0x4207;
export const PTRACE_LISTEN = 0x4208;
export const PTRACE_GET_SYSCALL_INFO = 0x420e;

/** Options of PTRACE_SEIZE and PTRACE_SETOPTIONS (linux/ptrace.h). TRACESYSGOOD sets bit 7 of the signal at a system call stop. */
export const PTRACE_O_TRACESYSGOOD = 1;
export const PTRACE_O_EXITKILL = 0x10_0000;
export const PTRACE_O_SUSPEND_SECCOMP = 0x20_0000;

/** `status >> 16` at a stop caused by PTRACE_INTERRUPT, or by a group stop (linux/ptrace.h, 3.4). */
export const PTRACE_EVENT_STOP = 128;

/** Register sets of PTRACE_GETREGSET (linux/elf.h): general registers; on aarch64 also the system call number, a u32. */
export const NT_PRSTATUS = 1;
export const NT_ARM_SYSTEM_CALL = 0x404;

/** `struct iovec` (linux/uio.h, 64-bit): where PTRACE_GETREGSET puts the registers, and what process_vm_readv takes. */
export const iovec = struct('iovec', 16, { iov_base: ['u64', 0], iov_len: ['u64', 8] });

/** `struct user_regs_struct` of x86-64 (sys/user.h). */
export const user_regs_struct = struct('user_regs_struct', 216, {
  r15: ['u64', 0],
  r14: ['u64', 8],
  r13: ['u64', 16],
  r12: ['u64', 24],
  rbp: ['u64', 32],
  rbx: ['u64', 40],
  r11: ['u64', 48],
  r10: ['u64', 56],
  r9: ['u64', 64],
  r8: ['u64', 72],
  rax: ['u64', 80],
  rcx: ['u64', 88],
  rdx: ['u64', 96],
  rsi: ['u64', 104],
  rdi: ['u64', 112],
  orig_rax: ['u64', 120],
  rip: ['u64', 128],
  cs: ['u64', 136],
  eflags: ['u64', 144],
  rsp: ['u64', 152],
  ss: ['u64', 160],
  fs_base: ['u64', 168],
  gs_base: ['u64', 176],
  ds: ['u64', 184],
  es: ['u64', 192],
  fs: ['u64', 200],
  gs: ['u64', 208],
});

/** `struct user_pt_regs` of aarch64 (asm/ptrace.h). `regs0` is `regs[0]`, x0. */
export const user_pt_regs = struct('user_pt_regs', 272, {
  regs0: ['u64', 0],
  regs1: ['u64', 8],
  regs2: ['u64', 16],
  regs3: ['u64', 24],
  regs4: ['u64', 32],
  regs5: ['u64', 40],
  regs6: ['u64', 48],
  regs7: ['u64', 56],
  regs8: ['u64', 64],
  regs9: ['u64', 72],
  regs10: ['u64', 80],
  regs11: ['u64', 88],
  regs12: ['u64', 96],
  regs13: ['u64', 104],
  regs14: ['u64', 112],
  regs15: ['u64', 120],
  regs16: ['u64', 128],
  regs17: ['u64', 136],
  regs18: ['u64', 144],
  regs19: ['u64', 152],
  regs20: ['u64', 160],
  regs21: ['u64', 168],
  regs22: ['u64', 176],
  regs23: ['u64', 184],
  regs24: ['u64', 192],
  regs25: ['u64', 200],
  regs26: ['u64', 208],
  regs27: ['u64', 216],
  regs28: ['u64', 224],
  regs29: ['u64', 232],
  regs30: ['u64', 240],
  sp: ['u64', 248],
  pc: ['u64', 256],
  pstate: ['u64', 264],
});
