import type { Range } from './timeline.ts';

export interface AxisTick {
  readonly time: number;
  readonly label: string;
}

/** Round times in a range, at most so many, with labels that count from `zero`: microseconds. */
export function axisTicks({ begin, end }: Range, zero: number, most: number): AxisTick[] {
  const step = stepFor((end - begin) / most);
  const first = Math.ceil((begin - zero) / step);
  const ticks: AxisTick[] = [];
  for (let n = first; n * step + zero <= end && ticks.length <= most; n += 1) {
    ticks.push({ time: n * step + zero, label: timeLabel(n * step, step) });
  }
  return ticks;
}

/** The next of 1, 2, 5, 10 and so on. */
function stepFor(least: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) ?? 10 * power;
}

/** A time with the unit that its step asks for. */
function timeLabel(us: number, step: number): string {
  if (us === 0) return '0';
  if (step >= 1e6) return `${us / 1e6} s`;
  if (step >= 1e3) return `${us / 1e3} ms`;
  return `${us} us`;
}
