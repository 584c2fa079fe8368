import type { Benchmark, Row } from './benchmark.ts';
import { summarize, type Pair, type Sample, type Summary } from './paired.ts';

/** A row of the table, measured. `ours`, `compared` and `met` are null if only the baseline was run. */
export interface Result extends Row {
  readonly benchmark: string;
  readonly rounds: number;
  readonly ours: Summary | null;
  readonly baseline: Summary;
  /** Of the rounds' ratios or differences, each ours by its own baseline. */
  readonly compared: Summary | null;
  /** The median is within the target; null without a target. */
  readonly met: boolean | null;
}

function valueOf(sample: Sample, key: string): number {
  const value = sample[key];
  if (value === undefined) throw new Error(`no value measured: ${key}`);
  return value;
}

function meets(target: Row['target'], compared: Summary | null): boolean | null {
  if (!target || !compared) return null;
  return target.bound === 'at most' ? compared.median <= target.value : compared.median >= target.value;
}

function resultOf(benchmark: Benchmark, row: Row, pairs: readonly Pair[]): Result {
  const ours = pairs.flatMap((pair) => (pair.ours ? [valueOf(pair.ours, row.key)] : []));
  const baseline = pairs.map((pair) => valueOf(pair.baseline, row.key));
  const compared = ours.map((value, round) => {
    const base = baseline[round] ?? Number.NaN;
    return row.compare === 'ratio' ? value / base : value - base;
  });
  const comparison = compared.length > 0 ? summarize(compared) : null;
  return {
    benchmark: benchmark.name,
    ...row,
    rounds: pairs.length,
    ours: ours.length > 0 ? summarize(ours) : null,
    baseline: summarize(baseline),
    compared: comparison,
    met: meets(row.target, comparison),
  };
}

export function resultsOf(benchmark: Benchmark, pairs: readonly Pair[]): Result[] {
  return benchmark.rows.map((row) => resultOf(benchmark, row, pairs));
}

function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

function range(summary: Summary | null, unit = ''): string {
  if (!summary) return '-';
  const { median, min, max } = summary;
  return `${digits(median)}${unit && ` ${unit}`} (${digits(min)} to ${digits(max)})`;
}

function targetText({ target, compare, unit, met }: Result): string {
  if (!target) return '';
  const verdict = met === null ? '' : met ? ': met' : ': missed';
  return `${target.bound} ${target.value}${compare === 'difference' ? ` ${unit}` : ''}${verdict}`;
}

/** The results as an aligned table: medians, with smallest and largest in parentheses. */
export function table(results: readonly Result[]): string {
  const rows = [
    ['', 'ours', 'baseline', 'ratio or difference', 'target'],
    ...results.map((result) => [
      result.title,
      range(result.ours, result.unit),
      range(result.baseline, result.unit),
      range(result.compared, result.compare === 'difference' ? result.unit : ''),
      targetText(result),
    ]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}
