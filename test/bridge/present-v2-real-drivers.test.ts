import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { presentV2, type PresentV2Options } from '../../src/bridge/index.ts';
import { recover } from '../../src/device/migratable.ts';
import { isNotReady } from '../../src/error.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { readSome } from '../support/presented.ts';
import { QEMU_WROTE } from '../support/qemu-writes.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { v1Sim } from '../support/sims.ts';

/*
 * presentV2 in front of drivers that real ones were modelled on, with all their habits. Nothing here helps the bridge: what it does is
 * seen between it and the driver.
 */

const SIZE = 300_000;
const SECTION = 16_384;
const specs = {
  'hisi-v1': `hisi-v1,size=${SIZE}`,
  'mlx5-v1': `mlx5-v1,size=${SIZE}`,
  'nvidia-v1': `nvidia-v1,size=${SIZE},section=${SECTION}`,
  'spdk-v1': `spdk-v1,size=${SIZE}`,
} as const;
type Driver = keyof typeof specs;
const drivers = Object.keys(specs) as Driver[];
const PAGE = 4096;

/** A driver, what has been written to its device_state, and which parts of its data section were read. */
class Watched implements V1Device {
  readonly sim: ReturnType<typeof v1Sim>;
  readonly changes: string[] = [];
  readonly reads: { offset: number; length: number }[] = [];

  constructor(spec: string) {
    this.sim = v1Sim(spec);
  }

  get regionSize(): number {
    return this.sim.device.regionSize;
  }
  get dataSection(): V1Device['dataSection'] {
    return this.sim.device.dataSection;
  }
  get mapped(): Uint8Array | undefined {
    return this.sim.device.mapped;
  }
  read(offset: number, into: Uint8Array): void {
    if (offset >= this.dataSection.offset) this.reads.push({ offset, length: into.length });
    this.sim.device.read(offset, into);
  }
  write(offset: number, from: Uint8Array): void {
    if (offset === 0) this.changes.push(`${this.#state()}>${from[0]}`);
    this.sim.device.write(offset, from);
  }
  reset(): void {
    this.sim.device.reset();
  }

  #state(): string {
    const bytes = new Uint8Array(4);
    return outcome(() => this.sim.device.read(0, bytes)) === 'OK' ? String(bytes[0]) : '?';
  }
}

interface End {
  readonly driver: Watched;
  readonly device: V2Device;
  readonly bar: Uint8Array;
}

function end(spec: string, options: PresentV2Options = {}): End {
  const driver = new Watched(spec);
  return { driver, device: presentV2(driver, options), bar: driver.sim.bar };
}

const unheard = ({ driver }: End): string[] => driver.changes.filter((change) => !QEMU_WROTE.has(change));

/** Saves as QEMU 10 does, with one pass of pre-copy. */
function save(device: V2Device, preCopy = true): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const vmm = new V2Save(device, (piece) => pieces.push(piece.slice()));
  if (preCopy) {
    vmm.setup();
    let left = vmm.pending();
    while (left > 0 && vmm.pending() > 0) {
      const sent = vmm.iterate();
      if (sent === 0) break;
      left -= sent;
    }
    vmm.stop();
  }
  vmm.complete();
  return pieces;
}

function restore(device: V2Device, pieces: Iterable<Uint8Array>): void {
  const vmm = new V2Restore(device);
  vmm.setup();
  for (const piece of pieces) vmm.load(piece);
  vmm.complete();
}

/** Reads in pieces of a size, as far as it goes: to the end, to "no data now", or to what does not end. */
function readUpTo(session: V2DataSession | undefined, most: number, piece: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (let bytes = 0; bytes < most;) {
    let got = new Uint8Array(0);
    if (outcome(() => (got = readSome(session, piece) as typeof got)) === 'ENOMSG' || got.length === 0) break;
    pieces.push(got);
    bytes += got.length;
  }
  return join(pieces);
}

/** Repeats a call as long as it is not ready. */
function patiently<T>(call: () => T): T {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!isNotReady(error)) throw error;
    }
  }
}

/** Which drivers take their state in whatever transactions it comes. */
const RAW: Readonly<Record<Driver, boolean>> = {
  'hisi-v1': false,
  'mlx5-v1': true,
  'nvidia-v1': true,
  'spdk-v1': true,
};

describe.each(drivers)('presentV2 over %s', (driver) => {
  const spec = specs[driver];
  const segmentations = RAW[driver] ? (['raw', 'framed'] as const) : (['framed'] as const);

  test.each(segmentations)(
    'saves and restores as QEMU 10 does, %s: equal memory, and nothing that no QEMU wrote',
    (segmentation) => {
      const source = end(`${spec},seed=3`, { segmentation });
      const destination = end(spec, { segmentation });
      restore(destination.device, save(source.device));
      expect(destination.bar).toBeBytes(source.bar);
      expect([unheard(source), unheard(destination)]).toEqual([[], []]);
      expect([source.device.getState(), destination.device.getState()]).toEqual([V2.STOP, V2.RUNNING]);
    },
  );

  test('saves and restores a device straight from RUNNING, raw: one transaction is one', () => {
    const source = end(`${spec},seed=3`);
    const destination = end(spec);
    restore(destination.device, save(source.device, false));
    expect(destination.bar).toBeBytes(source.bar);
    expect([unheard(source), unheard(destination)]).toEqual([[], []]);
  });

  test('is saved while it is stopped, or says that this is not to be had, and then is', () => {
    const source = end(`${spec},seed=3`);
    source.device.setState(V2.STOP);
    const answer = outcome(() => save(source.device, false));
    expect(answer).toBe(driver === 'spdk-v1' ? 'EINVAL' : 'OK');
    if (answer === 'OK') return;
    source.device.reset();
    source.device.setState(V2.STOP);
    const destination = end(spec);
    restore(destination.device, save(source.device, false));
    expect(destination.bar).toBeBytes(source.bar);
    expect([unheard(source).filter((change) => change !== '0>2'), unheard(destination)]).toEqual([[], []]);
  });

  test('reads each byte of a buffer once, across no page; by mmap only where there is one', () => {
    const source = end(`${spec},seed=3`);
    source.device.setState(V2.STOP_COPY);
    const stream = readUpTo(source.device.openSession(), Infinity, 1_000_000);
    const { reads, dataSection, mapped } = source.driver;
    if (mapped !== undefined) {
      expect(reads).toEqual([]);
      return;
    }
    for (const { offset, length } of reads) {
      for (const begin of [0, dataSection.offset]) {
        expect(Math.floor((offset - begin) / PAGE)).toBe(Math.floor((offset + length - 1 - begin) / PAGE));
      }
    }
    expect(reads.reduce((sum, { length }) => sum + length, 0)).toBe(stream.length);
  });

  test.each([1000, 4097, 1_000_000])('gives the same stream in pieces of %i', (piece) => {
    const streams = [piece, 100_000].map((size) => {
      const { device } = end(`${spec},seed=3`);
      device.setState(V2.STOP_COPY);
      return readUpTo(device.openSession(), Infinity, size);
    });
    expect(streams[0]).toBeBytes(streams[1] ?? new Uint8Array(0));
  });

  test('a state of another device is told, at a write or by every way out of RESUMING', () => {
    const pieces = save(end(`${spec},compat=2`, { segmentation: 'framed' }).device);
    for (const way of [V2.RUNNING, V2.STOP, V2.PRE_COPY] as const) {
      const { device, bar } = end(`${spec},seed=5`, { segmentation: 'framed' });
      const untouched = bar.slice();
      const answers = [outcome(() => new V2Restore(device).setup())];
      const session = device.openSession();
      for (const piece of pieces) answers.push(outcome(() => session?.write(piece)));
      answers.push(outcome(() => device.setState(way)));
      if (way === V2.STOP) answers.push(outcome(() => device.setState(V2.RUNNING))); // held back: 4 to 1 is the load
      const told = answers.find((answer) => answer !== 'OK');
      expect(told).toBe(driver === 'hisi-v1' || driver === 'nvidia-v1' ? 'EFAULT' : 'EINVAL');
      expect(answers.at(-1)).not.toBe('OK');
      expect(bar).toBeBytes(untouched);
      device.reset();
      expect([
        device.getState(),
        outcome(() => restore(device, save(end(`${spec},seed=3`, { segmentation: 'framed' }).device))),
      ]).toEqual([V2.RUNNING, 'OK']);
    }
  });

  test('is recovered after a load that failed', () => {
    const { device } = end(`${spec},seed=5`);
    const session = device.setState(V2.RESUMING);
    outcome(() => session?.write(new Uint8Array(100).fill(1)));
    outcome(() => device.setState(V2.RUNNING));
    recover({ protocol: 'v2', device }, 'reset');
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test('repeats what is not ready, and doubles nothing', () => {
    const source = end(`${spec},seed=3,block=2`, { segmentation: 'framed' });
    const destination = end(`${spec},block=3`, { segmentation: 'framed' });
    const session = source.device.setState(V2.STOP_COPY);
    const stream: Uint8Array[] = [];
    const into = new Uint8Array(50_000);
    for (let got = 1; got > 0;) {
      got = patiently(() => session?.read(into) ?? 0);
      stream.push(into.slice(0, got));
    }
    const loading = destination.device.setState(V2.RESUMING);
    for (let rest = join(stream); rest.length > 0;) {
      rest = rest.subarray(patiently(() => loading?.write(rest) ?? rest.length));
    }
    patiently(() => destination.device.setState(V2.RUNNING));
    expect(destination.bar).toBeBytes(source.bar);
  });

  test('is migrated by a VMM of v1 natively, as QEMU 7.2 does it', () => {
    const source = v1Sim(`${spec},seed=3`);
    const destination = v1Sim(spec);
    const buffers: Uint8Array[] = [];
    const old = new V1Save(source.device, (buffer) => buffers.push(buffer.slice()));
    old.setup();
    if (old.pending() > 0) old.iterate();
    old.stop();
    old.complete();
    const load = new V1Restore(destination.device);
    load.setup();
    for (const buffer of buffers) load.load(buffer);
    load.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });

  test(
    'whatever is read in pre-copy, by what sizes, and written by what cuts: equal memory',
    () => {
      const size = fc.integer({ min: 900, max: 400_000 });
      fc.assert(
        fc.property(size, size, size, size, fc.boolean(), (before, piece, written, guest, abandon) => {
          const source = end(`${spec},seed=3`, { segmentation: 'framed' });
          const destination = end(spec, { segmentation: 'framed' });
          if (abandon && driver !== 'mlx5-v1') {
            // a migration that was given up; mlx5 keeps what it has saved, see below
            source.device.setState(V2.PRE_COPY);
            readUpTo(source.device.openSession(), before, piece);
            source.device.setState(V2.STOP_COPY);
            readUpTo(source.device.openSession(), before, piece);
            source.device.setState(V2.RUNNING);
          }
          const session = source.device.setState(V2.PRE_COPY);
          const first = readUpTo(session, before, piece);
          source.bar[guest % SIZE] = 0x5a;
          source.device.setState(V2.STOP_COPY);
          const second = readUpTo(session, Infinity, piece);
          restore(destination.device, cut(join([first, second]), [written]));
          expect(destination.bar).toBeBytes(source.bar);
          expect([unheard(source), unheard(destination)]).toEqual([[], []]);
        }),
        { numRuns: numRuns(20) },
      );
    },
    PROPERTY_TIMEOUT,
  );
});

describe('presentV2 over hisi-v1', () => {
  test('in raw: the match data of pre-copy and the state become one transaction, which nobody refuses', () => {
    const source = end(`${specs['hisi-v1']},seed=3`);
    const destination = end(specs['hisi-v1']);
    restore(destination.device, save(source.device));
    expect(destination.bar).not.toEqual(source.bar);
  });
});

describe('presentV2 over mlx5-v1', () => {
  /** A device without an image in stop-and-copy, which cannot be had from the driver by itself. */
  function withoutImage(): V2Device {
    const { device } = v1Sim(specs['mlx5-v1']);
    const reads: V1Device['read'] = (offset, into) => {
      if (offset === 8) v1Sim(specs['mlx5-v1']).device.read(offset, into); // of a fresh one: 0 bytes
      device.read(offset, into);
    };
    return presentV2({
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: undefined,
      read: reads,
      write: (offset, from) => device.write(offset, from),
      reset: () => device.reset(),
    });
  }

  test('pending_bytes of 0 bytes is an error, and neither the end nor a size of 0', () => {
    const device = withoutImage();
    const session = device.setState(V2.STOP_COPY);
    expect(outcome(() => readSome(session, 100))).toBe('EIO');
    expect(device.stopCopyLength()).toBeGreaterThan(0);
    expect(outcome(() => readSome(session, 100))).toBe('EIO');
  });

  test.each([
    ['was saved before', (device: V2Device) => void save(device)],
    ['was loaded', (device: V2Device) => restore(device, save(end(`${specs['mlx5-v1']},seed=4`).device))],
  ])('does not take nothing for the state of a device that %s', (_what, before) => {
    const { device, bar } = end(`${specs['mlx5-v1']},seed=3`);
    before(device);
    device.setState(V2.RUNNING);
    expect(thrownBy(() => save(device))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    device.reset();
    const destination = end(specs['mlx5-v1']);
    restore(destination.device, save(device));
    expect(destination.bar).toBeBytes(bar);
  });
});

describe('presentV2 over spdk-v1', () => {
  test('reads as long as pre-copy lasts, which the driver never ends', () => {
    const { device } = end(`${specs['spdk-v1']},seed=3`);
    const session = device.setState(V2.PRE_COPY);
    expect(readUpTo(session, 3_000_000, 1_000_000).length).toBeGreaterThanOrEqual(3_000_000);
    expect(session?.precopyInfo().dirtyBytes).toBeGreaterThan(0);
  });
});

describe('presentV2 over nvidia-v1', () => {
  test('tells a VMM in pre-copy how much is left in all, as the driver does, so that it does not switch over too early', () => {
    const { device } = end(`${specs['nvidia-v1']},seed=3`);
    const session = device.setState(V2.PRE_COPY);
    readSome(session, 100);
    const { initialBytes, dirtyBytes } = session?.precopyInfo() ?? { initialBytes: 0, dirtyBytes: 0 };
    expect(initialBytes + dirtyBytes).toBeGreaterThan(SIZE);
  });
});
