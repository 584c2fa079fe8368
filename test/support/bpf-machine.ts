import {
  BPF_ABS,
  BPF_ADD,
  BPF_ALU,
  BPF_AND,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JMP,
  BPF_JSET,
  BPF_K,
  BPF_LD,
  BPF_MAXINSNS,
  BPF_MISC,
  BPF_RET,
  BPF_TAX,
  BPF_W,
  BPF_X,
  sock_filter,
} from '../../src/abi/bpf.ts';
import { seccomp_data } from '../../src/abi/seccomp.ts';

/** A system call, as a filter sees it. */
export interface SeccompData {
  readonly nr: number;
  readonly arch: number;
  readonly args: readonly bigint[];
}

/**
 * A seccomp filter run in software, with the checks that the kernel makes before it accepts a program
 * (kernel/seccomp.c: seccomp_check_filter, net/core/filter.c: bpf_check_classic): known instructions only, aligned loads
 * within `struct seccomp_data`, jumps within the program, a return at the end.
 */
export class BpfMachine {
  readonly #instructions: readonly { code: number; jt: number; jf: number; k: number }[];
  /** The instructions that have run, by place. */
  readonly covered = new Set<number>();

  constructor(program: Uint8Array) {
    const count = program.length / sock_filter.size;
    if (!Number.isInteger(count) || count < 1 || count > BPF_MAXINSNS) throw new RangeError(`${count} instructions`);
    this.#instructions = Array.from({ length: count }, (_, n) => sock_filter.decode(program, n * sock_filter.size));
    for (const [at, { code, jt, jf, k }] of this.#instructions.entries()) {
      const kind = code & 7;
      const fits =
        kind === BPF_LD
          ? code === (BPF_LD | BPF_W | BPF_ABS) && k % 4 === 0 && k < seccomp_data.size
          : kind === BPF_JMP
            ? [BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET].some((test) => code === (BPF_JMP | test | BPF_K)) &&
              at + 1 + Math.max(jt, jf) < count
            : [BPF_ALU | BPF_AND | BPF_K, BPF_ALU | BPF_ADD | BPF_X, BPF_MISC | BPF_TAX, BPF_RET | BPF_K].includes(
                code,
              );
      if (!fits) throw new RangeError(`instruction ${at}: ${JSON.stringify({ code, jt, jf, k })}`);
    }
    if (this.#instructions.at(-1)?.code !== (BPF_RET | BPF_K)) throw new RangeError('the program does not end');
  }

  get length(): number {
    return this.#instructions.length;
  }

  /** What the filter returns for a system call. */
  run({ nr, arch, args }: SeccompData): number {
    const data = new DataView(new ArrayBuffer(seccomp_data.size));
    data.setInt32(0, nr, true);
    data.setUint32(4, arch, true);
    args.forEach((value, n) => data.setBigUint64(16 + 8 * n, BigInt.asUintN(64, value), true));
    let accumulator = 0;
    let kept = 0;
    for (let at = 0; ; at += 1) {
      const instruction = this.#instructions[at];
      if (instruction === undefined) throw new RangeError(`ran beyond the end, to ${at}`);
      this.covered.add(at);
      const { code, jt, jf, k } = instruction;
      if (code === (BPF_RET | BPF_K)) return k;
      if (code === (BPF_LD | BPF_W | BPF_ABS)) accumulator = data.getUint32(k, true);
      else if (code === (BPF_MISC | BPF_TAX)) kept = accumulator;
      else if (code === (BPF_ALU | BPF_ADD | BPF_X)) accumulator = (accumulator + kept) >>> 0;
      else if (code === (BPF_ALU | BPF_AND | BPF_K)) accumulator = (accumulator & k) >>> 0;
      else at += compare(code, accumulator, k) ? jt : jf;
    }
  }
}

function compare(code: number, a: number, k: number): boolean {
  switch (code & 0xf0) {
    case BPF_JEQ:
      return a === k;
    case BPF_JGT:
      return a > k;
    case BPF_JGE:
      return a >= k;
    default:
      return (a & k) !== 0;
  }
}
