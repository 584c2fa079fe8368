/** What one run of one side measured: a value for each row of its benchmark. */
export type Sample = Readonly<Record<string, number>>;

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** One side's value next to the other's, of the same round. */
export interface Pair {
  readonly ours: Sample | undefined;
  readonly baseline: Sample;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  if (high === undefined) throw new Error('median: no values');
  return sorted.length % 2 === 1 || low === undefined ? high : (low + high) / 2;
}

export function summarize(values: readonly number[]): Summary {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Runs the two sides in turn (A B A B ...), so that whatever else the machine does falls on both; the first round warms
 * up and is dropped. Without `ours`, the baseline alone.
 */
export async function paired(
  rounds: number,
  ours: (() => Sample | Promise<Sample>) | undefined,
  baseline: () => Sample | Promise<Sample>,
  onRound: (round: number) => void = () => {},
): Promise<Pair[]> {
  const pairs: Pair[] = [];
  for (let round = 0; round <= rounds; round++) {
    onRound(round);
    const pair = { ours: await ours?.(), baseline: await baseline() };
    if (round > 0) pairs.push(pair);
  }
  return pairs;
}
