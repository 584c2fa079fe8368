import type { Sample } from './paired.ts';

export interface Options {
  /** The interposer's command, `dist/cli/main.js`. */
  readonly cli: string;
  /** Stop-copy only: both sides look at every byte, not at one per cache line. */
  readonly checksum: boolean;
}

/** One line of the table: what is compared, and how. */
export interface Row {
  readonly key: string;
  readonly title: string;
  readonly unit: 'ns' | 'ms' | 'MiB/s' | '/s' | 'us/s';
  readonly compare: 'ratio' | 'difference';
  readonly target?: { readonly bound: 'at most' | 'at least'; readonly value: number };
}

/** The two sides, each to be run once per round. */
export interface Sides {
  readonly ours: () => Sample | Promise<Sample>;
  readonly baseline: () => Sample | Promise<Sample>;
}

export interface Benchmark {
  readonly name: string;
  readonly about: string;
  readonly rounds: number;
  readonly rows: readonly Row[];
  /** Why it cannot be run on this machine. */
  readonly missing?: () => string | undefined;
  readonly prepare: (options: Options) => Sides | Promise<Sides>;
}
