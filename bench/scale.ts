import { freemem } from 'node:os';
import type { Benchmark, Row } from './benchmark.ts';
import type { Sample } from './paired.ts';
import { compile, interposed, numberOf, output } from './programs.ts';

/*
 * How the bridge's cost grows: with devices that work at the same time, with the threads that read them, with the size of a state. A
 * device is read as QEMU 10 does it, and the baseline is the same loop on memory (bench/c/save-all.c).
 */

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** A device whose firmware has a MiB every 5 milliseconds, as fast as a network of 2 Gbit/s. */
const CHUNK = MiB;
const DELAY_MS = 5;
const PACED = 64 * MiB;
const DEVICES = [1, 2, 4, 8, 16, 32] as const;
/** Besides one for each device. */
const THREADS = [1, 2, 4] as const;
const SIZES = [MiB, 16 * MiB, 256 * MiB, GiB, 6 * GiB] as const;

const target = { bound: 'at most', value: 1.15 } as const satisfies Row['target'];

function paced(
  name: string,
  about: string,
  options: readonly string[],
  cases: readonly (readonly [number, number])[],
): Benchmark {
  return {
    name: 'scale',
    about,
    rounds: 3,
    rows: cases.map(([devices, threads]) => ({
      key: `${devices} ${threads}`,
      title: `scale: ${name}${devices} device${devices > 1 ? 's' : ''}, ${threads} thread${threads > 1 ? 's' : ''}`,
      unit: 'ms',
      compare: 'ratio',
      ...(devices <= 8 && { target }),
    })),
    prepare({ cli }) {
      const client = compile('save-all', ['-pthread']);
      const spec = `mlx5,size=${PACED},initial=0,seed=1,chunk=${CHUNK},delay=${DELAY_MS}`;
      const measured = (command: (devices: number, threads: number) => readonly string[]): Sample =>
        Object.fromEntries(
          cases.map(([devices, threads]) => {
            const saved = output('save-all', command(devices, threads));
            if (numberOf(saved, 'bytes') < devices * PACED)
              throw new Error(`save-all: ${numberOf(saved, 'bytes')} bytes of state`);
            return [`${devices} ${threads}`, numberOf(saved, 'loopSeconds') * 1000];
          }),
        );
      return {
        ours: () =>
          measured((devices, threads) => {
            const given = Array.from({ length: devices }, () => ['--device', spec]).flat();
            return interposed(cli, [...options, ...given], [client, 'v2', String(threads)]);
          }),
        // an image has a header, so that the last one is small
        baseline: () =>
          measured((devices, threads) =>
            [client, 'memory', devices, PACED + 1, CHUNK, DELAY_MS * 1000, threads].map(String),
          ),
      };
    },
  };
}

const bySize: Benchmark = {
  name: 'scale',
  about: 'the state of one device that is always ready, by its size',
  rounds: 3,
  rows: SIZES.map((size) => ({
    key: String(size),
    title: `scale: ${size / MiB} MiB`,
    unit: 'MiB/s',
    compare: 'ratio',
  })),
  missing: () => (freemem() < 16 * GiB ? 'not 16 GiB of free memory' : undefined),
  prepare({ cli }) {
    const client = compile('save-all', ['-pthread']);
    const measured = (command: (size: number) => readonly string[]): Sample =>
      Object.fromEntries(
        SIZES.map((size) => {
          const saved = output('save-all', command(size));
          return [String(size), numberOf(saved, 'bytes') / MiB / numberOf(saved, 'loopSeconds')];
        }),
      );
    return {
      ours: () =>
        measured((size) =>
          interposed(cli, ['--device', `mlx5,size=${size},initial=0,seed=1,chunk=${8 * MiB}`], [client, 'v2']),
        ),
      baseline: () => measured((size) => [client, 'memory', '1', String(size), String(size), '1']),
    };
  },
};

export const scale: readonly Benchmark[] = [
  paced(
    '',
    'devices that have a MiB every 5 ms, saved at once, by their number',
    [],
    DEVICES.map((n) => [n, n] as const),
  ),
  paced(
    'both halves of the bridge, ',
    'the same with --round-trip',
    ['--round-trip'],
    DEVICES.slice(0, 4).map((n) => [n, n] as const),
  ),
  paced(
    '',
    'eight such devices, by the threads that read them',
    [],
    THREADS.map((n) => [8, n] as const),
  ),
  bySize,
];
