import {
  BPF_ABS,
  BPF_ADD,
  BPF_ALU,
  BPF_AND,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_MISC,
  BPF_RET,
  BPF_TAX,
  BPF_W,
  BPF_X,
  sock_filter,
} from '../../abi/bpf.ts';

/** One step of a filter. Jumps name a label; the other branch goes on with the next step. */
export type Step =
  | { readonly load: number }
  | { readonly and: number }
  /** Keeps what is loaded, to be added to what is loaded next. */
  | { readonly keep: true }
  | { readonly addKept: true }
  | { readonly ifAbove: number; readonly then: string }
  | { readonly unlessAbove: number; readonly then: string }
  | { readonly ifEqual: number; readonly then: string }
  | { readonly unlessEqual: number; readonly then: string }
  | { readonly unlessBetween: readonly [low: number, high: number]; readonly then: string }
  | { readonly ret: number }
  | { readonly label: string };

/** Assembles a filter into `struct sock_filter`s. Jumps go forward only, as BPF demands. */
export function assemble(steps: readonly Step[]): Uint8Array {
  const places = new Map<string, number>();
  let length = 0;
  for (const step of steps) {
    if ('label' in step) places.set(step.label, length);
    else length += 'unlessBetween' in step ? 2 : 1;
  }
  const program = new Uint8Array(length * sock_filter.size);
  let at = 0;
  const emit = (code: number, k: number, jt = 0, jf = 0): void => {
    sock_filter.encode({ code, jt, jf, k }, program, at * sock_filter.size);
    at += 1;
  };
  const to = (label: string): number => {
    const distance = (places.get(label) ?? Number.NaN) - at - 1;
    if (!(distance >= 0 && distance < 256)) throw new RangeError(`filter: no forward jump to ${label}`);
    return distance;
  };
  for (const step of steps) {
    if ('keep' in step) emit(BPF_MISC | BPF_TAX, 0);
    else if ('addKept' in step) emit(BPF_ALU | BPF_ADD | BPF_X, 0);
    else if ('load' in step) emit(BPF_LD | BPF_W | BPF_ABS, step.load);
    else if ('and' in step) emit(BPF_ALU | BPF_AND | BPF_K, step.and);
    else if ('ifEqual' in step) emit(BPF_JMP | BPF_JEQ | BPF_K, step.ifEqual, to(step.then));
    else if ('unlessEqual' in step) emit(BPF_JMP | BPF_JEQ | BPF_K, step.unlessEqual, 0, to(step.then));
    else if ('ifAbove' in step) emit(BPF_JMP | BPF_JGT | BPF_K, step.ifAbove, to(step.then));
    else if ('unlessAbove' in step) emit(BPF_JMP | BPF_JGT | BPF_K, step.unlessAbove, 0, to(step.then));
    else if ('unlessBetween' in step) {
      emit(BPF_JMP | BPF_JGE | BPF_K, step.unlessBetween[0], 0, to(step.then));
      emit(BPF_JMP | BPF_JGT | BPF_K, step.unlessBetween[1], to(step.then));
    } else if ('ret' in step) emit(BPF_RET | BPF_K, step.ret);
  }
  return program;
}
