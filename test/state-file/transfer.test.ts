import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ShimError } from '../../src/error.ts';
import { DRIVERS } from '../../src/sim/index.ts';
import { isChange, stateIn } from '../../src/device/device-event.ts';
import { stateName, type MigratableDevice } from '../../src/device/migratable.ts';
import { observe } from '../../src/device/observe.ts';
import { encodeHeader, fileSize, HEADER_SIZE, type StateHeader } from '../../src/state-file/format.ts';
import { StateReader } from '../../src/state-file/reader.ts';
import { restoreDevice } from '../../src/state-file/restore.ts';
import { saveDevice } from '../../src/state-file/save.ts';
import { StateWriter } from '../../src/state-file/writer.ts';
import { sleepUntilReady } from '../../src/wait.ts';
import { STEPS } from '../../src/sim/fault.ts';
import { createSim, kindOf, parseSpec } from '../../src/sim/index.ts';
import { failure, thrownBy } from '../support/errno.ts';
import { EndlessV2, mark } from '../support/endless.ts';
import { FULL, numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { v1Sim, v2Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { SpyV2 } from '../support/spy-v2.ts';
import { buffersOf, MemoryFile } from '../support/state-files.ts';

const wait = sleepUntilReady;

const spec = (driver: string, more = ''): string => `${driver}${driver === 'mtty' ? '' : ',size=10000'}${more}`;

function sim(text: string): { target: MigratableDevice; memory: Uint8Array; states: string[] } {
  const made = createSim(parseSpec(text));
  const states: string[] = [];
  const target = observe(made, (event) => {
    const state = stateIn(event);
    if (state !== undefined && isChange(event)) states.push(event.call === 'reset' ? 'reset' : state);
  });
  return { target, memory: made.bar, states };
}

function saved(target: MigratableDevice): MemoryFile {
  const file = new MemoryFile();
  const writer = new StateWriter(file);
  saveDevice(target, (buffer) => writer.buffer(buffer), { wait, expect: () => {} });
  writer.finish(target.protocol, {});
  return file;
}

function restored(target: MigratableDevice, file: MemoryFile): void {
  const reader = new StateReader(file);
  restoreDevice(target, (most) => reader.buffers(most), wait);
}

describe.each(DRIVERS)('the state of %s', (driver) => {
  it('is the same at the destination, and both devices run', () => {
    const source = sim(spec(driver, ',seed=3'));
    const destination = sim(spec(driver));
    expect(destination.memory).not.toBeBytes(source.memory);
    restored(destination.target, saved(source.target));
    expect(destination.memory).toBeBytes(source.memory);
    expect([stateName(source.target), stateName(destination.target)]).toEqual(['RUNNING', 'RUNNING']);
    expect(source.states.at(-1)).toBe('RUNNING');
    const preCopy = driver === 'draft-2018' ? 'MIGRATION_PRECOPY' : 'PRE_COPY';
    expect(source.states.includes(preCopy)).toBe(driver !== 'pds' && driver !== 'xe');
  });

  it('comes through a device that says "not yet" and moves little at a time', () => {
    const isV2 = kindOf({ driver }).protocol === 'v2';
    const slow = isV2 ? ',block=2,short=1000' : ',block=2';
    const source = sim(spec(driver, `,seed=3${slow}`));
    const destination = sim(spec(driver, slow));
    restored(destination.target, saved(source.target));
    expect(destination.memory).toBeBytes(source.memory);
  });

  it('is not saved or restored half, whatever fails, and the device runs', { timeout: PROPERTY_TIMEOUT }, () => {
    const whole = saved(sim(spec(driver, ',seed=3')).target);
    const faults = fc.tuple(
      fc.constantFrom(...STEPS),
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom('EIO', 'EINVAL', 'ENOMEM'),
      fc.constantFrom('', '!'),
    );
    let failures = 0;
    fc.assert(
      fc.property(fc.array(faults, { minLength: 1, maxLength: 3 }), (list) => {
        const text = list.map(([step, nth, errno, fatal]) => `,fault=${step}@${nth}:${errno}${fatal}`).join('');
        const source = sim(spec(driver, `,seed=3${text}`));
        const destination = sim(spec(driver, text));
        const ends = [
          { do: (): void => void saved(source.target), device: source },
          { do: () => restored(destination.target, whole), device: destination },
        ];
        for (const { do: run, device } of ends) {
          try {
            run();
            if (device === destination) expect(destination.memory).toBeBytes(source.memory);
          } catch (error) {
            expect(error).toBeInstanceOf(ShimError);
            failures += 1;
          }
          expect(stateName(device.target), text).toBe('RUNNING');
        }
      }),
      { numRuns: numRuns(100) },
    );
    expect(failures).toBeGreaterThan(20);
  });

  it('that is refused leaves a device that was reset', () => {
    const destination = sim(driver === 'mtty' ? 'mtty,ports=2' : `${driver},size=8K`);
    const file = saved(sim(spec(driver, ',seed=3')).target);
    expect(thrownBy(() => restored(destination.target, file)).code).toBe('ERR_DEVICE');
    expect(destination.states.at(-1)).toBe('reset');
    expect(stateName(destination.target)).toBe('RUNNING');
  });
});

describe('saveDevice', () => {
  it('lets the device run where the file fails', () => {
    const source = sim('qat,size=64K');
    const full = (): never => {
      throw new ShimError('ERR_FILE', 'no space', { errno: 'ENOSPC' });
    };
    expect(thrownBy(() => saveDevice(source.target, full, { wait, expect: () => {} })).errno).toBe('ENOSPC');
    expect(stateName(source.target)).toBe('RUNNING');
    expect(source.states).not.toContain('reset');
  });

  it('resets a device that does not go back to RUNNING', () => {
    const source = sim('qat,fault=read@2:EIO,fault=RUNNING@1:EBUSY');
    expect(thrownBy(() => saved(source.target)).message).toMatch(/read number 2 fails with EIO$/);
    expect(source.states.at(-1)).toBe('reset');
  });

  it('says so where not even a reset helps', () => {
    const { device } = v2Sim('qat,fault=read@1:EIO,fault=RUNNING@1:EBUSY');
    const broken = new SpyV2(device, {
      before(call) {
        if (call !== 'reset') return;
        throw new ShimError('ERR_DEVICE', 'VFIO_DEVICE_RESET: the driver answers ENOTTY', { errno: 'ENOTTY' });
      },
    });
    expect(thrownBy(() => saved({ protocol: 'v2', device: broken }))).toMatchObject({
      code: 'ERR_DEVICE',
      errno: 'EIO',
      message: expect.stringMatching(
        /fails with EIO; and the device could not be made to run again: .*ENOTTY$/,
      ) as string,
    });
  });

  it('ends pre-copy of a device that goes on changing', () => {
    const source = sim('vendor-v1,size=64K,section=8K,dirty=16,seed=1');
    const destination = sim('vendor-v1,size=64K,section=8K');
    const file = saved(source.target);
    expect(new StateReader(file).header.bytes).toBeLessThan(4 * 65536);
    restored(destination.target, file);
    expect(destination.memory).toBeBytes(source.memory);
  });

  it('says what it expects', () => {
    const expected: number[] = [];
    const { target } = sim('pds,size=10000');
    saveDevice(target, () => {}, { wait, expect: (bytes) => expected.push(bytes) });
    expect(expected).toEqual([10_032]);
  });
});

it.each(['read', 'write'] as const)('a data fd whose %s failed is closed', (call) => {
  const spy = new SpyV2(v2Sim('qat,size=64K').device, {
    before(called) {
      if (called === call) throw failure('EIO');
    },
  });
  const target = { protocol: 'v2', device: spy } as const;
  const whole = saved(sim('qat,size=64K').target);
  expect(thrownBy(() => (call === 'read' ? saved(target) : restored(target, whole))).errno).toBe('EIO');
  expect(spy.log).toContain('close');
});

describe('the buffers of a v1 device', () => {
  const text = 'vendor-v1,size=100000,section=16K,strict=1';

  it('are its transactions at the destination', () => {
    const source = v1Sim(`${text},seed=3`);
    const spy = new SpyV1(source.device);
    const file = saved({ protocol: 'v1', device: spy });
    const destination = v1Sim(text);
    const taken = new SpyV1(destination.device);
    restored({ protocol: 'v1', device: taken }, file);
    expect(spy.consumed.length).toBeGreaterThan(5);
    expect(buffersOf(file)).toBeBuffers(spy.consumed);
    expect(taken.loaded).toBeBuffers(spy.consumed);
    expect(destination.bar).toBeBytes(source.bar);
  });

  it('go through a data section that is not mapped', () => {
    const source = v1Sim(`${text},seed=3`);
    const destination = v1Sim(text);
    const file = saved({ protocol: 'v1', device: new SpyV1(source.device, { mapped: false }) });
    restored({ protocol: 'v1', device: new SpyV1(destination.device, { mapped: false }) }, file);
    expect(destination.bar).toBeBytes(source.bar);
  });

  it('are cut where the data section is smaller, which a strict driver refuses', () => {
    const file = saved(sim(`${text},seed=3`).target);
    const refuses = sim('vendor-v1,size=100000,section=8K,strict=1');
    expect(thrownBy(() => restored(refuses.target, file)).message).toMatch(/a transaction is not the one/);
    const takes = sim('vendor-v1,size=100000,section=8K');
    restored(takes.target, file);
    expect(takes.memory).toBeBytes(sim(`${text},seed=3`).memory);
  });
});

it('restoreDevice resets where the file has changed since it was checked', () => {
  const file = saved(sim('qat,size=64K,seed=3').target);
  file.bytes[file.size - 1] = 1 + (file.bytes[file.size - 1] ?? 0);
  const destination = sim('qat,size=64K');
  expect(thrownBy(() => restored(destination.target, file)).code).toBe('ERR_FILE_CORRUPT');
  expect(destination.states).toEqual(['RESUMING', 'reset']);
});

it('stateName names a state that is none', () => {
  const { device } = v1Sim('vendor-v1');
  const odd = new SpyV1(device);
  odd.read = (_offset, into) => into.fill(5, 0, 1);
  expect(stateName({ protocol: 'v1', device: odd })).toBe('UNKNOWN');
});

describe('states above 4 GiB', () => {
  const size = 4 * 2 ** 30 + 12_345;
  const BLOCK = 2 ** 20; // what a v2 device is read in

  function written(): StateHeader {
    let last = 0;
    const writer = new StateWriter({
      write: (bytes, position) => void (last = Math.max(last, position + bytes.length)),
    });
    const target = { protocol: 'v2', device: new EndlessV2(size) } as const;
    saveDevice(target, (buffer) => writer.buffer(buffer), { wait, expect: () => {} });
    const header = writer.finish('v2', {});
    expect(last).toBe(fileSize(header));
    return header;
  }

  it('are written', () => {
    expect(written()).toMatchObject({ bytes: size, buffers: 4097 });
  });

  it.runIf(FULL)('are read', { timeout: PROPERTY_TIMEOUT }, () => {
    const header = written();
    const page = encodeHeader(header);
    // as it would lie on the disk
    const source = {
      size: fileSize(header),
      read(into: Uint8Array, position: number): number {
        if (position === 0) into.set(page);
        else if (into.length === 8) {
          const done = ((position - HEADER_SIZE) / (BLOCK + 8)) * BLOCK;
          new DataView(into.buffer).setBigUint64(0, BigInt(Math.min(BLOCK, size - done)), true);
        } else {
          into.fill(0);
          mark(into, Math.floor((position - HEADER_SIZE) / (BLOCK + 8)) * BLOCK);
        }
        return into.length;
      },
    };
    const destination = new EndlessV2(size);
    const reader = new StateReader(source);
    restoreDevice({ protocol: 'v2', device: destination }, (most) => reader.buffers(most), wait);
    expect(destination.written).toBe(size);
  });
});
