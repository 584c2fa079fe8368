import { struct } from './struct.ts';

/**
 * Classic BPF, the language of seccomp filters (linux/bpf_common.h, linux/filter.h). An opcode is the sum of its parts:
 * `BPF_LD | BPF_W | BPF_ABS` (0x20) loads a word of `struct seccomp_data`, `BPF_JMP | BPF_JEQ | BPF_K` (0x15) compares it
 * with a constant, `BPF_RET | BPF_K` (0x06) returns one.
 */
export const BPF_LD = 0x00;
export const BPF_LDX = 0x01;
export const BPF_ST = 0x02;
export const BPF_STX = 0x03;
export const BPF_ALU = 0x04;
export const BPF_JMP = 0x05;
export const BPF_RET = 0x06;
export const BPF_MISC = 0x07;

// Size and mode of a load. Seccomp allows only words, and only ABS, IMM, MEM and LEN.
export const BPF_W = 0x00;
export const BPF_IMM = 0x00;
export const BPF_ABS = 0x20;
export const BPF_MEM = 0x60;
export const BPF_LEN = 0x80;

// Arithmetic.
export const BPF_ADD = 0x00;
export const BPF_SUB = 0x10;
export const BPF_MUL = 0x20;
export const BPF_DIV = 0x30;
export const BPF_OR = 0x40;
export const BPF_AND = 0x50;
export const BPF_LSH = 0x60;
export const BPF_RSH = 0x70;
export const BPF_NEG = 0x80;
export const BPF_XOR = 0xa0;

// Jumps.
export const BPF_JA = 0x00;
export const BPF_JEQ = 0x10;
export const BPF_JGT = 0x20;
export const BPF_JGE = 0x30;
export const BPF_JSET = 0x40;

// The second operand: the instruction's constant, or register X. Of BPF_RET also: register A.
export const BPF_K = 0x00;
export const BPF_X = 0x08;
export const BPF_A = 0x10;
export const BPF_TAX = 0x00;
export const BPF_TXA = 0x80;

/** Most instructions a program may have (linux/bpf_common.h). */
export const BPF_MAXINSNS = 4096;

/** `struct sock_filter`: one instruction; a jump's `jt` and `jf` count from the next one (linux/filter.h). */
export const sock_filter = struct('sock_filter', 8, { code: ['u16', 0], jt: ['u8', 2], jf: ['u8', 3], k: ['u32', 4] });

/** `struct sock_fprog`: a program; `filter` points to `len` instructions (linux/filter.h, 64-bit pointers). */
export const sock_fprog = struct('sock_fprog', 16, { len: ['u16', 0], filter: ['u64', 8] });
