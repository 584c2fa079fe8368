import * as fc from 'fast-check';

/** What a new VMM, its guest and its operator may do, in any order. */
type Plain = 'writeAll' | 'info' | 'readAhead' | 'look' | 'reset' | 'resetBehind' | 'replace' | 'readOld';
export type V2Step =
  | { readonly do: 'state'; readonly target: number }
  | { readonly do: 'read' | 'readInPlace' | 'write' | 'writeInPlace'; readonly bytes: number }
  | { readonly do: Plain }
  | { readonly do: 'guest'; readonly seed: number }
  | { readonly do: 'inject'; readonly what: 'pending_bytes' | 'data_offset' | 'data_size' | 'device_state' };

const plain = (what: Plain): fc.Arbitrary<V2Step> => fc.constant({ do: what });

export const v2Step: fc.Arbitrary<V2Step> = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(1, 2, 3, 4, 6).map((target): V2Step => ({ do: 'state', target })) },
  { weight: 3, arbitrary: fc.constantFrom(5, 7).map((target): V2Step => ({ do: 'state', target })) },
  { weight: 1, arbitrary: fc.constantFrom(0, 8, 255).map((target): V2Step => ({ do: 'state', target })) },
  { weight: 14, arbitrary: fc.integer({ min: 1, max: 9000 }).map((bytes): V2Step => ({ do: 'read', bytes })) },
  { weight: 7, arbitrary: fc.integer({ min: 1, max: 9000 }).map((bytes): V2Step => ({ do: 'readInPlace', bytes })) },
  { weight: 7, arbitrary: plain('readAhead') },
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 20_000 }).map((bytes): V2Step => ({ do: 'write', bytes })) },
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 20_000 }).map((bytes): V2Step => ({ do: 'writeInPlace', bytes })) },
  { weight: 3, arbitrary: plain('writeAll') },
  { weight: 3, arbitrary: plain('info') },
  { weight: 2, arbitrary: plain('look') },
  { weight: 2, arbitrary: plain('replace') },
  { weight: 1, arbitrary: plain('readOld') },
  { weight: 3, arbitrary: fc.nat().map((seed): V2Step => ({ do: 'guest', seed })) },
  { weight: 1, arbitrary: plain('reset') },
  { weight: 1, arbitrary: plain('resetBehind') },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom('pending_bytes', 'data_offset', 'data_size', 'device_state')
      .map((what): V2Step => ({ do: 'inject', what })),
  },
);

export interface V2Conditions {
  /** Seed of "not yet"; 0 is never. */
  readonly seed: number;
  readonly segmentation: 'raw' | 'framed';
  readonly offerP2P: boolean;
  readonly mapped: boolean;
  readonly dirty: number;
}

export const v2Conditions: fc.Arbitrary<V2Conditions> = fc.record({
  seed: fc.oneof(fc.constant(0), fc.nat()),
  segmentation: fc.constantFrom('raw', 'framed'),
  offerP2P: fc.boolean(),
  mapped: fc.boolean(),
  dirty: fc.constantFrom(0, 2),
});
