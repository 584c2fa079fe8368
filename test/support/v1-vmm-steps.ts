import * as fc from 'fast-check';

/** What an old VMM, its guest, its operator and its device may do, in any order. */
type Plain = 'pending' | 'take' | 'look' | 'reset' | 'resetBehind' | 'break' | 'replace' | 'quiesce';
export type V1Step =
  | { readonly do: 'state'; readonly value: number }
  | { readonly do: Plain }
  | { readonly do: 'load'; readonly bytes: number }
  | { readonly do: 'guest'; readonly seed: number }
  | { readonly do: 'inject'; readonly call: 'read' | 'write' | 'setState' };

const state = (...values: number[]): fc.Arbitrary<V1Step> =>
  fc.constantFrom(...values).map((value) => ({ do: 'state', value }));
const plain = (what: Plain): fc.Arbitrary<V1Step> => fc.constant({ do: what });

export const v1Step: fc.Arbitrary<V1Step> = fc.oneof(
  { weight: 8, arbitrary: state(0, 1, 2, 3, 4) },
  { weight: 3, arbitrary: state(3, 2, 4) },
  { weight: 1, arbitrary: state(5, 6, 7, 8, 9, 0x8000_0001) },
  { weight: 10, arbitrary: plain('pending') },
  { weight: 10, arbitrary: plain('take') },
  { weight: 6, arbitrary: fc.nat(4096).map((bytes): V1Step => ({ do: 'load', bytes })) },
  { weight: 2, arbitrary: plain('look') },
  { weight: 2, arbitrary: plain('replace') },
  { weight: 2, arbitrary: fc.nat().map((seed): V1Step => ({ do: 'guest', seed })) },
  { weight: 1, arbitrary: plain('quiesce') },
  { weight: 1, arbitrary: plain('reset') },
  { weight: 1, arbitrary: plain('resetBehind') },
  { weight: 1, arbitrary: plain('break') },
  {
    weight: 1,
    arbitrary: fc.constantFrom('read', 'write', 'setState').map((call): V1Step => ({ do: 'inject', call })),
  },
);

export interface Weather {
  /** Seed of short transfers, signals and "not yet"; 0 is none of them. */
  readonly seed: number;
  readonly onError: 'reset' | 'report';
  readonly enomsg: boolean;
}

export const weather: fc.Arbitrary<Weather> = fc.record({
  seed: fc.oneof(fc.constant(0), fc.nat()),
  onError: fc.constantFrom('reset', 'report'),
  enomsg: fc.boolean(),
});
