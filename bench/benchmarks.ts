import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Benchmark } from './benchmark.ts';
import { dirty } from './dirty.ts';
import { idle } from './idle.ts';
import { median, type Sample } from './paired.ts';
import { compile, interposed, numberOf, numbersOf, output, time } from './programs.ts';
import { scale } from './scale.ts';
import { vfioUser } from './vfio-user.ts';
import { vmm } from './vmm.ts';

const device = ['--device', 'qat'];
const GiB = 2 ** 30;
const MiB = 2 ** 20;

const trap: Benchmark = {
  name: 'trap',
  about: 'one trapped pread of device_state, against a C supervisor that only answers',
  rounds: 10,
  rows: [
    {
      key: 'pread',
      title: 'trap: pread of device_state',
      unit: 'ns',
      compare: 'ratio',
      target: { bound: 'at most', value: 1.5 },
    },
    { key: 'written', title: 'trap: the C supervisor writes the 4 bytes too', unit: 'ns', compare: 'ratio' },
  ],
  prepare({ cli }) {
    const client = compile('trap-client');
    const supervisor = compile('null-supervisor');
    const calls = '100000';
    return {
      ours() {
        const pread = numberOf(output('trap-client', interposed(cli, device, [client, calls])), 'nsPerCall');
        return { pread, written: pread };
      },
      baseline: () => ({
        pread: numberOf(output('null-supervisor', [supervisor, calls]), 'nsPerCall'),
        written: numberOf(output('null-supervisor', [supervisor, calls, 'write']), 'nsPerCall'),
      }),
    };
  },
};

const record: Benchmark = {
  name: 'record',
  about: 'one trapped pread of device_state with --record, against one without',
  rounds: 10,
  rows: [
    {
      key: 'pread',
      title: 'record: pread of device_state',
      unit: 'ns',
      compare: 'ratio',
      target: { bound: 'at most', value: 1.15 },
    },
  ],
  prepare({ cli }) {
    const client = compile('trap-client');
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-bench-'));
    process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
    const run = (options: readonly string[]): Sample => ({
      pread: numberOf(output('trap-client', interposed(cli, [...device, ...options], [client, '100000'])), 'nsPerCall'),
    });
    let file = 0;
    return {
      ours: () => run(['--record', join(directory, String((file += 1)))]),
      baseline: () => run([]),
    };
  },
};

const stopCopy: Benchmark = {
  name: 'stop-copy',
  about: '1 GiB of v1 stop-and-copy state through a 16 MiB data section, against read() of the same amount',
  rounds: 7,
  rows: [
    {
      key: 'whole',
      title: 'stop-copy: throughput',
      unit: 'MiB/s',
      compare: 'ratio',
      target: { bound: 'at least', value: 0.95 },
    },
    { key: 'data', title: 'stop-copy: less state changes', unit: 'MiB/s', compare: 'ratio' },
  ],
  prepare({ cli, checksum }) {
    const client = compile('v1-save');
    const reader = compile('read-source');
    const consume = checksum ? ['checksum'] : [];
    let bytes = GiB;
    return {
      ours() {
        const run = ['--data-size', '16M', '--device', 'qat,size=1G,seed=1'];
        const saved = output('v1-save', interposed(cli, run, [client, ...consume]));
        bytes = numberOf(saved, 'bytes');
        if (bytes < GiB) throw new Error(`v1-save: ${bytes} bytes of state, not ${GiB}`);
        return {
          whole: bytes / MiB / numberOf(saved, 'seconds'),
          data: bytes / MiB / numberOf(saved, 'loopSeconds'),
        };
      },
      baseline() {
        const source = output('read-source', [reader, String(bytes), ...consume]);
        const throughput = bytes / MiB / numberOf(source, 'seconds');
        return { whole: throughput, data: throughput };
      },
    };
  },
};

const CHUNKS = 32;

const chunks: Benchmark = {
  name: 'chunks',
  about: '1 GiB of mlx5 in 32 images that the firmware saves while the VMM reads, against the slower of the two alone',
  rounds: 7,
  rows: [
    {
      key: 'total',
      title: 'chunks: firmware and VMM together',
      unit: 'ms',
      compare: 'ratio',
      target: { bound: 'at most', value: 1.15 },
    },
  ],
  prepare({ cli }) {
    const client = compile('v1-save');
    const save = (delay: number): number => {
      const device = `mlx5,size=1G,initial=0,seed=1,chunk=${GiB / CHUNKS},delay=${delay}`;
      const saved = output('v1-save', interposed(cli, ['--data-size', '16M', '--device', device], [client]));
      if (numberOf(saved, 'bytes') < GiB) throw new Error(`v1-save: ${numberOf(saved, 'bytes')} bytes of state`);
      return numberOf(saved, 'loopSeconds') * 1000;
    };
    // as slow as the VMM, which is where working one after the other costs most; in whole milliseconds for an image
    const delay = Math.max(1, Math.round(save(0) / CHUNKS));
    return {
      ours: () => ({ total: save(delay) }),
      // an image has a header, so that the last one is small
      baseline: () => ({ total: Math.max(save(0), delay * (CHUNKS + 1)) }),
    };
  },
};

const UNTRAPPED = {
  getppid: 'getppid',
  pread: 'pread',
  ioctl: 'ioctl',
  config: 'pread of config space, against one of shared memory',
  bar0: 'pread of BAR0, against one of shared memory',
  mmap: 'mmap of a file to be written, and munmap',
} as const;

const untrapped: Benchmark = {
  name: 'untrapped',
  about: 'what system calls that are none of ours, or that a device answers by itself, cost more under the interposer',
  rounds: 10,
  rows: Object.entries(UNTRAPPED).map(([key, title]) => ({
    key,
    title: `untrapped: ${title}`,
    unit: 'ns',
    compare: 'difference',
    target: { bound: 'at most', value: 100 },
  })),
  prepare({ cli }) {
    const program = compile('untrapped');
    const sample = (command: readonly string[]): Sample => {
      const result = output('untrapped', command);
      return Object.fromEntries(Object.keys(UNTRAPPED).map((key) => [key, median(numbersOf(result, key))]));
    };
    return {
      ours: () => sample(interposed(cli, device, [program])),
      baseline: () => sample([program]),
    };
  },
};

const startUp: Benchmark = {
  name: 'start-up',
  about: 'run --device qat -- /bin/true, against node -e 0',
  rounds: 10,
  rows: [
    {
      key: 'time',
      title: 'start-up: /bin/true',
      unit: 'ms',
      compare: 'ratio',
      target: { bound: 'at most', value: 2 },
    },
    { key: 'served', title: 'start-up: until the first call is answered', unit: 'ms', compare: 'ratio' },
  ],
  prepare: ({ cli }) => {
    const client = compile('trap-client');
    return {
      ours: () => ({
        time: time(interposed(cli, device, ['/bin/true'])),
        served: time(interposed(cli, device, [client, '1'])),
      }),
      baseline() {
        const node = time([process.execPath, '-e', '0']);
        return { time: node, served: node };
      },
    };
  },
};

export const benchmarks: readonly Benchmark[] = [
  trap,
  record,
  stopCopy,
  chunks,
  dirty,
  untrapped,
  startUp,
  idle,
  vfioUser,
  ...scale,
  ...vmm,
];
