import { describe, expect, it } from 'vitest';
import { BPF_JEQ, BPF_JMP, BPF_K, sock_filter } from '../../../src/abi/bpf.ts';
import { assemble, type Step } from '../../../src/interpose/trap/bpf.ts';
import { BpfMachine } from '../../support/bpf-machine.ts';

/** What a program returns where the system call's number is `nr`. */
function run(steps: readonly Step[], nr: number): number {
  return new BpfMachine(assemble(steps)).run({ nr, arch: 0, args: [] });
}

describe('assemble', () => {
  it('encodes instructions as linux/filter.h has them', () => {
    const program = assemble([
      { load: 4 },
      { ifEqual: 0xc000_003e, then: 'end' },
      { ret: 1 },
      { label: 'end' },
      { ret: 0x7fff_0000 },
    ]);
    expect(Buffer.from(program).toString('hex')).toBe(
      ['2000000004000000', '150001003e0000c0', '0600000001000000', '060000000000ff7f'].join(''),
    );
  });

  it('jumps on equality, on difference and out of a range, whose ends belong to it', () => {
    const otherwise: Step[] = [{ ret: 1 }, { label: 'there' }, { ret: 2 }];
    const equal: Step[] = [{ load: 0 }, { ifEqual: 7, then: 'there' }, ...otherwise];
    expect([6, 7, 8].map((nr) => run(equal, nr))).toEqual([1, 2, 1]);
    const unequal: Step[] = [{ load: 0 }, { unlessEqual: 7, then: 'there' }, ...otherwise];
    expect([6, 7, 8].map((nr) => run(unequal, nr))).toEqual([2, 1, 2]);
    const between: Step[] = [{ load: 0 }, { unlessBetween: [5, 7], then: 'there' }, ...otherwise];
    expect([4, 5, 6, 7, 8, -1].map((nr) => run(between, nr))).toEqual([2, 1, 1, 1, 2, 2]);
    const masked: Step[] = [{ load: 0 }, { and: 0xf0 }, { ifEqual: 0x30, then: 'there' }, ...otherwise];
    expect([0x30, 0x3f, 0x40, 0x130].map((nr) => run(masked, nr))).toEqual([2, 2, 1, 2]);
  });

  it('takes a label at the very next step as no jump at all', () => {
    expect(run([{ load: 0 }, { ifEqual: 1, then: 'next' }, { label: 'next' }, { ret: 3 }], 1)).toBe(3);
  });

  it('jumps 255 instructions at most, and never back', () => {
    const far = (count: number): Step[] => [
      { load: 0 },
      { ifEqual: 1, then: 'far' },
      ...Array.from({ length: count }, (): Step => ({ ret: 0 })),
      { label: 'far' },
      { ret: 9 },
    ];
    expect(run(far(255), 1)).toBe(9);
    expect(() => assemble(far(256))).toThrow(RangeError);
    expect(() => assemble([{ label: 'back' }, { load: 0 }, { ifEqual: 1, then: 'back' }, { ret: 0 }])).toThrow(/back/);
    expect(() => assemble([{ load: 0 }, { ifEqual: 1, then: 'nowhere' }, { ret: 0 }])).toThrow(/nowhere/);
  });
});

describe('BpfMachine', () => {
  const one = (code: number, jt: number, jf: number, k: number): Uint8Array => {
    const program = assemble([{ load: 0 }, { ret: 0 }]);
    sock_filter.encode({ code, jt, jf, k }, program);
    return program;
  };

  it('refuses what the kernel would', () => {
    expect(() => new BpfMachine(one(0x20, 0, 0, 2))).toThrow(RangeError); // not aligned
    expect(() => new BpfMachine(one(0x20, 0, 0, 64))).toThrow(RangeError); // beyond the data
    expect(() => new BpfMachine(one(0x30, 0, 0, 0))).toThrow(RangeError); // a load of a byte
    expect(() => new BpfMachine(one(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0))).toThrow(RangeError); // beyond the end
    expect(() => new BpfMachine(new Uint8Array(0))).toThrow(RangeError);
    expect(() => new BpfMachine(assemble([{ load: 0 }]))).toThrow(RangeError); // no return
  });
});
