import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { newSimMemory } from '../../src/sim/create.ts';
import { Mlx5Device } from '../../src/sim/mlx5-device.ts';
import { FIRST_RECORD_SIZE, image_extent, image_header, record_header } from '../../src/sim/mlx5-format.ts';
import type { SimMemory } from '../../src/sim/memory.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';

const MS = 1000;
const MIB = 2 ** 20;

/** A device, its memory, and a clock that stands still until it is set. */
function mlx5(options = '', memory?: SimMemory) {
  const spec = parseSpec(`mlx5${options && ','}${options}`);
  if (spec.driver !== 'mlx5') throw new Error('unreachable');
  const kept = memory ?? newSimMemory(spec);
  const clock = { now: 1 };
  const make = (): Mlx5Device => new Mlx5Device(spec, kept, () => clock.now);
  return { spec, memory: kept, bar: kept.bar, clock, device: make(), successor: make };
}

function begin(device: Mlx5Device, state: (typeof V2)['STOP_COPY' | 'PRE_COPY' | 'RESUMING']): V2DataSession {
  if (state === V2.STOP_COPY) device.setState(V2.STOP);
  const session = device.setState(state);
  if (session === undefined) throw new Error('no session has begun');
  return session;
}

/** Reads until there is no more, now or for good. */
function drain(session: V2DataSession, piece = 64 * 1024): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(piece);
    try {
      const length = session.read(into);
      if (length === 0) return join(pieces);
      pieces.push(into.subarray(0, length));
    } catch (error) {
      if (!(error instanceof Error) || !/no data now/.test(error.message)) throw error;
      return join(pieces);
    }
  }
}

/** The records of a stream. */
function records(stream: Uint8Array): { size: number; flags: number; tag: number; payload: Uint8Array }[] {
  const found = [];
  for (let at = 0; at < stream.length;) {
    const { record_size, flags, tag } = record_header.decode(stream, at);
    at += record_header.size;
    found.push({ size: Number(record_size), flags, tag, payload: stream.subarray(at, at + Number(record_size)) });
    at += Number(record_size);
  }
  return found;
}

function load(stream: Uint8Array, options: string, sizes = [stream.length]) {
  const destination = mlx5(options);
  const session = begin(destination.device, V2.RESUMING);
  for (const piece of cut(stream, sizes)) session.write(piece);
  destination.device.setState(V2.RUNNING);
  return destination;
}

/** What mlx5 puts around the memory of one image. */
const AROUND = record_header.size + image_header.size + image_extent.size;

describe('mlx5 saving a stopped device', () => {
  test('the stream: a STOP_COPY_SIZE record, and an FW_DATA record for each chunk', () => {
    const { device, bar } = mlx5('size=20M,seed=3,chunk=8M');
    const stream = drain(begin(device, V2.STOP_COPY), 3 * MIB + 1);
    expect([...stream.subarray(0, 16)]).toEqual([8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    expect(new DataView(stream.buffer, stream.byteOffset).getBigUint64(16, true)).toBe(BigInt(8 * MIB));
    const [first, ...images] = records(stream);
    expect(first).toMatchObject({ size: 8, flags: 1, tag: 1 });
    expect(images.map(({ flags, tag }) => [flags, tag])).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    expect(images.every(({ size }) => size <= 8 * MIB)).toBe(true);
    expect(stream).toHaveLength(FIRST_RECORD_SIZE + 3 * AROUND + 20 * MIB);
    expect(join(images.map(({ payload }) => payload.subarray(AROUND - 16)))).toBeBytes(bar);
  });

  test('MIG_DATA_SIZE leaves out what is around the images: the stream is longer', () => {
    const { device } = mlx5('size=20M,chunk=8M');
    const promised = device.stopCopyLength();
    expect(promised).toBeGreaterThanOrEqual(20 * MIB);
    expect(drain(begin(device, V2.STOP_COPY), MIB).length).toBeGreaterThan(promised);
  });

  test('without chunk mode: one image', () => {
    const { device } = mlx5('size=20M,chunk=0,seed=1');
    expect(records(drain(begin(device, V2.STOP_COPY), MIB))).toHaveLength(2);
  });

  test('two images are saved ahead and no third, until one was read', () => {
    const { device, clock } = mlx5('size=1M,chunk=64K,delay=10');
    const session = begin(device, V2.STOP_COPY);
    const into = new Uint8Array(64 * 1024 + record_header.size);
    expect(session.read(into)).toBe(FIRST_RECORD_SIZE);
    expect(outcome(() => session.read(into))).toBe('EAGAIN');
    clock.now += 10 * MS;
    expect(session.read(into.subarray(0, 1))).toBe(1);
    clock.now += 1000 * MS; // however long nobody reads
    const rest = drained(session);
    // the first, to its end, and the second; the third began when the first was read
    expect(records(join([into.subarray(0, 1), rest]))).toHaveLength(2);
    expect(outcome(() => session.read(into))).toBe('EAGAIN');
    clock.now += 10 * MS;
    expect(session.read(into)).toBeGreaterThan(60_000);
  });

  /** What there is to read without waiting. */
  function drained(session: V2DataSession): Uint8Array {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const into = new Uint8Array(10_000);
      try {
        pieces.push(into.subarray(0, session.read(into)));
      } catch {
        return join(pieces);
      }
    }
  }

  test('a SAVE that fails: ENODEV, and the state can be left', () => {
    const { device } = mlx5('size=1M,chunk=64K,fwerr=SAVE@2');
    const session = begin(device, V2.STOP_COPY);
    expect(outcome(() => drain(session))).toBe('ENODEV');
    device.setState(V2.RUNNING);
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENODEV');
  });

  test('a reset while a reader waits: ENODEV, and RUNNING', () => {
    const { device } = mlx5('delay=1000');
    const session = begin(device, V2.STOP_COPY);
    drained(session);
    device.reset();
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENODEV');
    expect(device.getState()).toBe(V2.RUNNING);
  });
});

describe('mlx5 in pre-copy', () => {
  test('makes nothing new unless it is asked for precopy info', () => {
    const { device, bar } = mlx5('size=1M,initial=64K,seed=2');
    const session = begin(device, V2.PRE_COPY);
    expect(drain(session)).toHaveLength(FIRST_RECORD_SIZE + AROUND + 64 * 1024);
    bar.fill(0xaa, 0, 5000);
    for (let n = 0; n < 100; n += 1) expect(outcome(() => session.read(new Uint8Array(100)))).toBe('ENOMSG');
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 48 + 8192 });
    const [image, ...others] = records(drain(session));
    expect(others).toEqual([]);
    expect(image?.payload.subarray(48)).toBeBytes(bar.subarray(0, 8192));
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
  });

  test('says initial bytes until the first image was read, and adds 16 from 7.1 on only', () => {
    const { device, bar } = mlx5('kernel=7.1,initial=16K,size=16K');
    const session = begin(device, V2.PRE_COPY);
    const whole = FIRST_RECORD_SIZE + AROUND + 16 * 1024;
    expect(session.precopyInfo()).toEqual({ initialBytes: whole, dirtyBytes: 0 });
    session.read(new Uint8Array(1000));
    bar[0] = 1;
    expect(session.precopyInfo()).toEqual({ initialBytes: whole - 1000, dirtyBytes: 0 });
    drain(session);
    bar[0] = 2;
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 16 + 48 + 4096 });
    // what is unread now is told together with what has changed since
    bar[4096] = 3;
    expect(session.precopyInfo().dirtyBytes).toBe(16 + 48 + 4096 + 48 + 8192);
  });

  test.each([
    ['6.12', 'ENOMSG'],
    ['7.1', 'EAGAIN'],
  ])('kernel=%s: a read while an image is saved is %s', (kernel, errno) => {
    const { device, clock, bar } = mlx5(`kernel=${kernel},delay=5`);
    const session = begin(device, V2.PRE_COPY);
    session.read(new Uint8Array(100));
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EAGAIN'); // before the first image
    clock.now += 5 * MS;
    drain(session);
    bar[0] = 1;
    session.precopyInfo();
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe(errno);
    clock.now += 5 * MS;
    expect(session.read(new Uint8Array(1))).toBe(1);
  });

  test('precopy info and leaving pre-copy wait for the image that is being saved', () => {
    const { device, clock } = mlx5('delay=5');
    const session = begin(device, V2.PRE_COPY);
    expect(outcome(() => session.precopyInfo())).toBe('EAGAIN');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EAGAIN');
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EAGAIN');
    clock.now += 5 * MS;
    expect(session.precopyInfo().initialBytes).toBeGreaterThan(0);
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
    expect(device.getState()).toBe(V2.STOP_COPY);
  });

  test('EINVAL for precopy info in another state, ENODEV behind a failed image', () => {
    const stopped = mlx5();
    const session = begin(stopped.device, V2.STOP_COPY);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
    const failed = mlx5('fwerr=SAVE@1');
    const other = begin(failed.device, V2.PRE_COPY);
    expect(outcome(() => other.precopyInfo())).toBe('ENODEV');
  });

  test('a first image that the state does not allow: ENOMSG, and stop-and-copy has all', () => {
    const { device, bar } = mlx5('size=128K,seed=4,initial=64K,fwerr=SAVE@1:state');
    const session = begin(device, V2.PRE_COPY);
    const early = drain(session);
    expect(early).toHaveLength(FIRST_RECORD_SIZE);
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENOMSG');
    device.setState(V2.STOP_COPY);
    const { bar: arrived } = load(join([early, drain(session)]), 'size=128K');
    expect(arrived).toBeBytes(bar);
  });

  test('leaving pre-copy after a failed image: EIO, still in pre-copy, and only a reset helps', () => {
    const { device } = mlx5('fwerr=SAVE@1');
    begin(device, V2.PRE_COPY);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EIO');
    expect(device.getState()).toBe(V2.PRE_COPY);
    expect(device.openSession()).toBeUndefined();
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EIO');
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
    device.setState(V2.STOP);
  });

  test('a reset while somebody waits with the lock: whoever asks for the state waits for the image, too', () => {
    const { device, clock } = mlx5('delay=5');
    const session = begin(device, V2.PRE_COPY);
    expect(outcome(() => session.precopyInfo())).toBe('EAGAIN');
    device.reset();
    expect(outcome(() => device.getState())).toBe('EAGAIN');
    clock.now += 5 * MS;
    expect(device.getState()).toBe(V2.RUNNING);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
  });
});

describe('mlx5 and REINIT', () => {
  test('6.12 has no such feature', () => {
    expect(mlx5().device.precopyInfoV2).toBeUndefined();
  });

  test('who has not asked for it finds dirty bytes instead', () => {
    const { device, bar } = mlx5('kernel=7.1,reinit=2,size=16K');
    const session = begin(device, V2.PRE_COPY);
    drain(session);
    session.precopyInfo();
    bar[0] = 1;
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 16 + 48 + 4096 });
  });

  test('what was unread and the new image are initial bytes, once', () => {
    const { device, bar } = mlx5('kernel=7.1,reinit=2,size=16K');
    device.precopyInfoV2?.(true);
    const session = begin(device, V2.PRE_COPY);
    session.read(new Uint8Array(FIRST_RECORD_SIZE + AROUND));
    expect(session.precopyInfo()).toEqual({ initialBytes: 16_384, dirtyBytes: 0, reinit: false });
    bar[0] = 1; // the page was not sent yet: it differs from what a destination has
    const { initialBytes, dirtyBytes, reinit } = session.precopyInfo();
    expect([dirtyBytes, reinit]).toEqual([0, true]);
    expect(initialBytes).toBe(16_384 + 16 + 48 + 4096);
    const { initialBytes: then } = session.precopyInfo();
    expect(then).toBe(initialBytes);
    expect(drain(session)).toHaveLength(initialBytes);
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0, reinit: false });
  });
});

describe('mlx5 resuming', () => {
  const source = mlx5('size=200K,seed=9,chunk=64K');
  const stream = drain(begin(source.device, V2.STOP_COPY));

  test('takes a stream that is cut anywhere', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(sizes, (pieces) => {
        const coarse = pieces.map((size) => Math.max(size, 100));
        expect(load(stream, 'size=200K', coarse).bar).toBeBytes(source.bar);
      }),
      { numRuns: 20 },
    );
    for (let at = 0; at <= 200; at += 1) {
      expect(load(stream, 'size=200K', [at, stream.length - at]).bar).toBeBytes(source.bar);
    }
  });

  test('cut off: leaving RESUMING succeeds, and the device has the whole images only', () => {
    const { bar, device } = load(stream.subarray(0, stream.length - 1), 'size=200K');
    expect(device.getState()).toBe(V2.RUNNING);
    const loaded = 3 * (64 * 1024 - 4096);
    expect(bar.subarray(0, loaded)).toBeBytes(source.bar.subarray(0, loaded));
    expect(bar.subarray(loaded)).toBeBytes(new Uint8Array(bar.length - loaded));
  });

  const record = (record_size: bigint, flags: number, tag: number): Uint8Array =>
    record_header.encode({ record_size, flags, tag });

  test('skips optional records that it does not know, and takes any number of STOP_COPY_SIZE', () => {
    const strange = join([record(5n, 1, 77), noise(5), record(0n, 1, 78), record(3n, 0, 1), noise(3)]);
    expect(load(join([strange, stream, strange]), 'size=200K', [7]).bar).toBeBytes(source.bar);
  });

  test.each([
    ['a mandatory record that it does not know', record(5n, 0, 77), 'EOPNOTSUPP'],
    ['a record of 4 GiB', record(2n ** 32n, 0, 0), 'ENOMEM'],
    ['an optional one of 4 GiB', record(2n ** 32n, 1, 77), 'ENOMEM'],
    ['an image of nothing', record(0n, 0, 0), 'EINVAL'],
    ['an image that is none', join([record(64n, 0, 0), noise(64)]), 'EINVAL'],
    ['an image that is too short to be one', join([record(4n, 0, 0), noise(4)]), 'EINVAL'],
  ])('%s: %s, then ENODEV, and leaving RESUMING succeeds', (_, bytes, errno) => {
    const { device } = mlx5('size=200K');
    const session = begin(device, V2.RESUMING);
    expect(outcome(() => session.write(bytes))).toBe(errno);
    expect(outcome(() => session.write(stream.subarray(0, 10)))).toBe('ENODEV');
    device.setState(V2.RUNNING);
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test.each(['size=100K', 'size=200K,compat=2', 'size=200K,fwerr=LOAD@2'])('%s refuses an image', (options) => {
    expect(['EINVAL', 'EIO']).toContain(outcome(() => load(stream, options)));
  });

  test('an image whose extents lie, anywhere: an error, never memory beyond', () => {
    const at = FIRST_RECORD_SIZE + record_header.size;
    fc.assert(
      fc.property(fc.nat(AROUND), fc.nat(255), (offset, value) => {
        const lying = Uint8Array.from(stream);
        lying[at + offset] = value;
        try {
          load(lying, 'size=200K');
        } catch (error) {
          expect(error).toMatchObject({ name: 'ShimError' });
        }
      }),
    );
  });
});

describe('mlx5, whatever is read and written when', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('read' as const), size: fc.constantFrom(1, 15, 16, 17, 4096, MIB) }),
    fc.record({ kind: fc.constant('write' as const), page: fc.nat(40), value: fc.nat(255) }),
    fc.record({ kind: fc.constant('info' as const) }),
    fc.record({ kind: fc.constant('time' as const), ms: fc.nat(8) }),
    fc.record({ kind: fc.constant('successor' as const) }),
  );

  test('the destination has what the source had when it stopped, over any number of processes', () => {
    const options = fc.record({
      delay: fc.constantFrom(0, 3),
      initial: fc.constantFrom('0', '50K', '200K'),
      kernel: fc.constantFrom('6.12', '7.1'),
    });
    fc.assert(
      fc.property(options, fc.array(step, { maxLength: 60 }), ({ delay, initial, kernel }, steps) => {
        const text = `size=170K,seed=5,chunk=64K,initial=${initial},delay=${delay},kernel=${kernel}`;
        const made = mlx5(text);
        const pieces: Uint8Array[] = [];
        let { device } = made;
        begin(device, V2.PRE_COPY);
        const read = (size: number): boolean => {
          const into = new Uint8Array(size);
          try {
            const length = device.openSession()?.read(into) ?? 0;
            pieces.push(into.subarray(0, length));
            return length > 0;
          } catch (error) {
            if (
              !['EAGAIN', 'ENOMSG'].includes(
                outcome(() => {
                  throw error;
                }),
              )
            )
              throw error;
            made.clock.now += MS;
            return true;
          }
        };
        for (const now of steps) {
          if (now.kind === 'read') read(now.size);
          else if (now.kind === 'write') made.bar.fill(now.value, now.page * 4096, now.page * 4096 + 100);
          else if (now.kind === 'info') outcome(() => device.openSession()?.precopyInfo());
          else if (now.kind === 'time') made.clock.now += now.ms * MS;
          else device = made.successor();
        }
        while (outcome(() => device.setState(V2.STOP_COPY)) === 'EAGAIN') made.clock.now += MS;
        for (let n = 0; read(5000); n += 1) if (n % 7 === 3) device = made.successor();
        expect(load(join(pieces), 'size=170K').bar).toBeBytes(made.bar);
      }),
      { numRuns: 60 },
    );
  });

  test('poll says when a read ends at once, and by nothing but time until then', () => {
    const options = fc.record({
      delay: fc.constantFrom(0, 3),
      kernel: fc.constantFrom('6.12', '7.1'),
      fwerr: fc.constantFrom(
        '',
        ',fwerr=SAVE@1',
        ',fwerr=SAVE@1:state',
        ',fwerr=SAVE@2',
        ',fwerr=SAVE@2:state',
        ',fwerr=SAVE@3',
      ),
    });
    const steps = fc.array(fc.oneof(step, fc.record({ kind: fc.constant('stop' as const) })), { maxLength: 40 });
    const seen = new Set<string>();
    const readAll = { kind: 'read' as const, size: MIB };
    fc.assert(
      fc.property(options, steps, ({ delay, kernel, fwerr }, all) => {
        const made = mlx5(`size=170K,chunk=64K,initial=50K,delay=${delay},kernel=${kernel}${fwerr}`);
        const session = begin(made.device, V2.PRE_COPY);
        /** How a read of a byte would end at a time. */
        const readAt = (time: number): string => {
          const { state, bar, kept } = made.memory;
          const memory = { ...made.memory, state: state.slice(), bar: bar.slice(), kept: kept.slice() };
          const copy = new Mlx5Device(made.spec, memory, () => time);
          return outcome(() => copy.openSession()?.read(new Uint8Array(1)));
        };
        const check = (): void => {
          const from = session.readableFrom?.() ?? NaN;
          const before = Math.min(from - 1, made.clock.now + 3600 * 1000 * MS);
          const waits = from <= made.clock.now ? undefined : readAt(before);
          if (waits !== undefined) expect(['EAGAIN', 'ENOMSG']).toContain(waits);
          const ends = from === Infinity ? undefined : readAt(Math.max(from, made.clock.now));
          if (ends !== undefined) expect(['OK', 'ENODEV']).toContain(ends);
          seen.add(`${waits} ${ends}`);
        };
        check();
        outcome(() => session.read(new Uint8Array(FIRST_RECORD_SIZE)));
        check();
        for (const now of all) {
          if (now.kind === 'read') outcome(() => session.read(new Uint8Array(now.size)));
          else if (now.kind === 'write') made.bar.fill(now.value, now.page * 4096, now.page * 4096 + 100);
          else if (now.kind === 'info') outcome(() => session.precopyInfo());
          else if (now.kind === 'time') made.clock.now += now.ms * MS;
          else if (now.kind === 'stop') outcome(() => made.device.setState(V2.STOP_COPY));
          check();
        }
      }),
      {
        numRuns: 60,
        examples: [
          [{ delay: 3, kernel: '6.12', fwerr: '' }, []],
          [{ delay: 3, kernel: '6.12', fwerr: ',fwerr=SAVE@1' }, []],
          [{ delay: 0, kernel: '6.12', fwerr: '' }, [readAll]],
        ],
      },
    );
    // every kind was met: data, an error, a wait for either, and no data now
    for (const kind of ['undefined OK', 'undefined ENODEV', 'EAGAIN OK', 'EAGAIN ENODEV', 'ENOMSG undefined'])
      expect(seen).toContain(kind);
  });

  test('a file that is resumed from has no poll', () => {
    expect(begin(mlx5().device, V2.RESUMING).readableFrom).toBeUndefined();
  });
});
