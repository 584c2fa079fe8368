import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Result } from './report.ts';

/** docs/performance.md: the curves of `scale`, as this machine has them. */

const FILE = join(import.meta.dirname, '..', 'docs', 'performance.md');

export interface Machine {
  readonly kernel: string;
  readonly node: string;
  readonly cpu: string;
  readonly cpus: number;
}

/** A part of the document: results whose titles begin alike, by a number in the rest of the title. */
interface Curve {
  readonly heading: string;
  readonly text: string;
  readonly axis: string;
  readonly of: (result: Result) => number | undefined;
}

const numberIn = (pattern: RegExp) => (result: Result) => {
  const found = pattern.exec(result.title)?.[1];
  return found === undefined ? undefined : Number(found);
};

const CURVES: readonly Curve[] = [
  {
    heading: 'By the number of devices',
    text: 'Emulated devices of a v2 driver that have a MiB every 5 ms, 64 MiB each, saved at once by a VMM with a thread for each. Up to eight of them the bridge is to take 1.15 of the native time at most.',
    axis: 'devices',
    of: ({ title }) => {
      const found = /^scale: (\d+) devices?, (\d+) threads?$/.exec(title);
      return found !== null && found[1] === found[2] ? Number(found[1]) : undefined;
    },
  },
  {
    heading: 'The same through both halves of the bridge',
    text: 'With `--round-trip`: v2, shown as v1, shown as v2.',
    axis: 'devices',
    of: numberIn(/^scale: both halves of the bridge, (\d+) device/),
  },
  {
    heading: 'By the number of threads',
    text: 'Eight such devices. With fewer threads than devices, those that are not read wait for those that are, natively too.',
    axis: 'threads',
    of: numberIn(/^scale: 8 devices, (\d+) thread/),
  },
  {
    heading: 'By the size of the state',
    text: 'One device whose firmware takes no time, read 1 MiB at a time. What it costs to be served is one more copy and a trap for each MiB; the first reads of a supervisor are those of a program that has just started.',
    axis: 'MiB',
    of: numberIn(/^scale: (\d+) MiB$/),
  },
];

/** Writes the document; throws if a curve has no points, as after a run of something else. */
export function writePerformance(results: readonly Result[], { kernel, node, cpu, cpus }: Machine): string {
  const parts = CURVES.map((curve) => {
    const points = results.flatMap((result) => {
      const at = curve.of(result);
      const { compared, ours } = result;
      return at === undefined || compared === null || ours === null ? [] : [{ at, result, ours, ratio: compared }];
    });
    points.sort((a, b) => a.at - b.at);
    if (points.length === 0) throw new Error(`--write: nothing was measured of: ${curve.heading}`);
    const unit = points[0]?.result.unit ?? '';
    const rows = points.map(({ at, result, ours, ratio }) => [
      String(at),
      digits(ours.median),
      digits(result.baseline.median),
      `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`,
    ]);
    const head = [curve.axis, `bridged, ${unit}`, `native, ${unit}`, 'ratio'];
    const chart = [
      '```mermaid',
      'xychart-beta',
      `  x-axis "${curve.axis}" [${points.map(({ at }) => at).join(', ')}]`,
      `  y-axis "bridged against native" 0 --> ${Math.ceil(Math.max(1.5, ...points.map(({ ratio }) => ratio.median)) * 2) / 2}`,
      `  line [${points.map(({ ratio }) => ratio.median.toFixed(2)).join(', ')}]`,
      '```',
    ];
    return [`## ${curve.heading}`, '', curve.text, '', ...markdown([head, ...rows]), '', ...chart].join('\n');
  });
  const text = `# What the bridge costs as things grow

\`npm run bench -- scale --write\` has written this: on Linux ${kernel}, Node ${node}, ${cpus} x ${cpu}. Run it on your machine. Each figure is the median of
three rounds, in which the bridged program and its baseline take turns; in parentheses the smallest and the largest ratio. The baseline is
the same loop of reads on memory, whose chunks come at the same pace ([save-all.c](../bench/c/save-all.c)): a driver that costs nothing.

Drivers of the kernel that let their caller wait are no part of it, as no public one is of that kind. How they are waited for says
[architecture.md](architecture.md#several-devices); \`npm run lab -- several-devices\` shows that they work at the same time.

${parts.join('\n\n')}
`;
  writeFileSync(FILE, text);
  return FILE;
}

function digits(value: number): string {
  return value.toFixed(value >= 100 ? 0 : 1);
}

function markdown(rows: readonly (readonly string[])[]): string[] {
  const [head = [], ...rest] = rows;
  return [head, head.map(() => '---:'), ...rest].map((cells) => `| ${cells.join(' | ')} |`);
}
