import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { presentV1 } from '../../src/bridge/present-v1.ts';
import { presentV2 } from '../../src/bridge/present-v2.ts';
import type { MigratableDevice } from '../../src/device/migratable.ts';
import { fillTape, recordedSpec } from '../../src/recorded/recorded-spec.ts';
import { createSim, newSimMemory, parseSpec, type SimMemory } from '../../src/sim/index.ts';
import { restoreDevice } from '../../src/state-file/restore.ts';
import { saveDevice } from '../../src/state-file/save.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Save } from '../../src/v1/save.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import { sleepUntilReady } from '../../src/wait.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { TestRecorder, NAME } from '../replay/recorder.ts';

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'shim-recorded-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const newFile = (): string => join(directory, `recording${(count += 1)}`);

const watch = { wait: sleepUntilReady, expect: () => {} };

/** A recording of a VMM of one protocol on a driver, whatever that speaks. */
function recorded(spec: string, use: (v1: V1Device, v2: V2Device) => void, keepData = true): string {
  const sim = createSim(parseSpec(spec));
  const { protocol } = sim;
  if (protocol !== 'v1' && protocol !== 'v2') throw new Error(spec);
  const recorder = new TestRecorder(spec, { keepData, devices: [{ name: NAME, device: spec, protocol }] });
  const driver = recorder.driver<MigratableDevice>(sim);
  recorder.opened();
  const v1 = driver.protocol === 'v1' ? driver.device : presentV1((driver as { device: V2Device }).device);
  const v2 = driver.protocol === 'v2' ? driver.device : presentV2((driver as { device: V1Device }).device);
  use(recorder.v1(v1), recorder.v2(v2));
  return recorder.write(newFile());
}

interface Played {
  readonly device: MigratableDevice;
  readonly memory: SimMemory;
  readonly words: string[];
  /** The same in another process, which has the memory. */
  readonly successor: () => MigratableDevice;
}

function played(file: string, suffix = ''): Played {
  const spec = recordedSpec(`recording:${file}${suffix}`);
  const memory = newSimMemory(spec);
  fillTape(spec, memory.kept);
  const words: string[] = [];
  const successor = (): MigratableDevice => createSim(spec, memory, (text) => void words.push(text));
  return { device: successor(), memory, words, successor };
}

function playedV2(file: string): Played & { readonly v2: V2Device } {
  const found = played(file);
  if (found.device.protocol !== 'v2') throw new Error('not v2');
  return { ...found, v2: found.device.device };
}

function saved(device: MigratableDevice): Uint8Array {
  const pieces: Uint8Array[] = [];
  saveDevice(device, (bytes) => pieces.push(bytes.slice()), watch);
  return Buffer.concat(pieces);
}

function saveV1(v1: V1Device): void {
  const save = new V1Save(v1, () => {});
  save.setup();
  if (save.pending() > 0) save.iterate();
  save.stop();
  save.complete();
}

function saveV2(v2: V2Device): void {
  const save = new V2Save(v2, () => {});
  save.setup();
  if (save.pending() > 0) save.iterate();
  save.stop();
  save.complete();
}

function read(v2: V2Device, length = 1 << 20): Uint8Array {
  const into = new Uint8Array(length);
  return into.subarray(0, v2.openSession()?.read(into) ?? 0);
}

const drivers = ['qat,size=64K,seed=3', 'mlx5,size=64K,seed=3', 'vendor-v1,size=64K,seed=3,section=16K'] as const;

describe('a recorded driver', () => {
  it.each(drivers)('%s gives its state to whoever saves it, as an old VMM and as a new one recorded it', (spec) => {
    for (const use of [(v1: V1Device) => saveV1(v1), (_: V1Device, v2: V2Device) => saveV2(v2)]) {
      const { device, words } = played(recorded(spec, use));
      const state = saved(device);
      const twin = createSim(parseSpec(spec.replace('seed=3', 'seed=0')));
      restoreDevice(twin, () => [state], sleepUntilReady);
      expect(twin.bar).toBeBytes(createSim(parseSpec(spec)).bar);
      expect(words).toEqual([]);
    }
  });

  it.each(drivers)('%s takes the state that it took, and no other', (spec) => {
    const state = saved(createSim(parseSpec(spec)));
    const file = recorded(spec.replace('seed=3', 'seed=0'), (_, v2) =>
      restoreDevice({ protocol: 'v2', device: v2 }, () => [state], sleepUntilReady),
    );
    restoreDevice(played(file).device, () => [state], sleepUntilReady);
    const other = state.slice();
    other[40] = (other[40] ?? 0) ^ 1;
    const { device, words } = played(file);
    expect(outcome(() => restoreDevice(device, () => [other], sleepUntilReady))).toBe('EINVAL');
    expect(words).toEqual([expect.stringMatching(/^this was never recorded: other data are loaded/)]);
    const short = played(file);
    expect(outcome(() => restoreDevice(short.device, () => [state.subarray(0, 64)], sleepUntilReady))).toBe('EINVAL');
  });

  it('has in pre-copy what was there in pre-copy, and goes on where a process before it was killed', () => {
    const spec = 'qat,size=64K,seed=3';
    const expected = saved(createSim(parseSpec(spec)));
    const { v2, successor } = playedV2(recorded(spec, (_, device) => saveV2(device)));
    v2.setState(V2.PRE_COPY);
    const setup = read(v2, 20).slice();
    const next = successor();
    if (next.protocol !== 'v2') throw new Error('not v2');
    expect(next.device.openSession()?.precopyInfo()).toEqual({ initialBytes: 32, dirtyBytes: 0 });
    const rest = read(next.device).slice();
    expect([setup.length, rest.length, read(next.device).length]).toEqual([20, 12, 0]);
    next.device.setState(V2.STOP_COPY);
    const data = read(next.device).slice();
    expect(read(next.device).length).toBe(0);
    expect(Buffer.concat([setup, rest, data])).toBeBytes(expected);
  });

  it('fails where the recorded one failed, and not again', () => {
    const file = recorded('qat,size=64K,seed=3,fault=STOP_COPY@1:EIO,fault=read@2:ENOSPC', (_, v2) => {
      expect(outcome(() => v2.setState(V2.STOP_COPY))).toBe('EIO');
      v2.getState();
      v2.setState(V2.STOP_COPY);
      read(v2, 100);
      expect(outcome(() => read(v2))).toBe('ENOSPC');
      while (read(v2).length > 0);
    });
    const { v2 } = playedV2(file);
    expect(outcome(() => v2.setState(V2.STOP_COPY))).toBe('EIO');
    expect(v2.getState()).toBe(V2.STOP);
    v2.setState(V2.STOP_COPY);
    expect(read(v2, 200).length).toBeGreaterThanOrEqual(100);
    expect(outcome(() => read(v2))).toBe('ENOSPC');
    expect(read(v2).length).toBeGreaterThan(0);
  });

  it('refuses what was never recorded: a session too many, data behind the last, info that nobody asked for', () => {
    const file = recorded('qat,size=64K,seed=3', (_, v2) => {
      v2.setState(V2.PRE_COPY);
      v2.setState(V2.STOP_COPY);
      read(v2, 1000);
    });
    const { v2, words } = playedV2(file);
    v2.setState(V2.PRE_COPY);
    expect(outcome(() => v2.openSession()?.precopyInfo())).toBe('ENOTTY');
    expect(outcome(() => v2.stopCopyLength())).toBe('ENOTTY');
    v2.setState(V2.STOP_COPY);
    expect(read(v2).length).toBe(1000);
    expect(outcome(() => read(v2))).toBe('EIO');
    v2.reset();
    expect(outcome(() => v2.setState(V2.STOP_COPY))).toBe('EINVAL');
    expect(v2.getState()).not.toBe(V2.STOP_COPY);
    expect(outcome(() => v2.setState(V2.RUNNING_P2P))).toBe('EINVAL'); // nobody saw that it had this state
    expect(words.map((text) => text.replace(/^this was never recorded: /, ''))).toEqual([
      'VFIO_MIG_GET_PRECOPY_INFO',
      'data are read behind 1000 bytes, where the recorded user ended',
      'the device is saved for the 2. time, and was 1 times',
    ]);
  });

  it('shows a v1 VMM the buffers that the recorded one had', () => {
    const sizes = (v1: V1Device): number[] => {
      const found: number[] = [];
      const save = new V1Save(v1, (bytes) => found.push(bytes.length));
      save.setup();
      save.stop();
      save.complete();
      return found;
    };
    let expected: number[] = [];
    const file = recorded('vendor-v1,size=64K,seed=3,section=16K', (v1) => (expected = sizes(v1)));
    const { device } = played(file);
    if (device.protocol !== 'v1') throw new Error('not v1');
    expect(sizes(device.device)).toEqual(expected);
    expect(expected.length).toBeGreaterThan(3);
  });
});

describe('recording:FILE', () => {
  it('is of the kind that was recorded', () => {
    const spec = recordedSpec(`recording:${recorded('hisi,size=64K', (_, v2) => saveV2(v2))}`);
    expect(spec).toMatchObject({
      driver: 'recording',
      protocol: 'v2',
      of: 'hisi',
      size: 65_536,
      pci: { vendor: 0x19e5 },
    });
  });

  it('says why it cannot be played', () => {
    const without = recorded('qat,size=64K', (_, v2) => saveV2(v2), false);
    expect(thrownBy(() => recordedSpec(`recording:${without}`))).toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(thrownBy(() => recordedSpec(`recording:${without}`)).message).toMatch(/line \d+: .*--record-data/);
    const file = recorded('qat,size=64K', (_, v2) => saveV2(v2));
    writeFileSync(`${file}.data`, readFileSync(`${file}.data`).subarray(1));
    expect(thrownBy(() => recordedSpec(`recording:${file}`)).code).toBe('ERR_FILE_CORRUPT');
    expect(thrownBy(() => recordedSpec(`recording:${file},device=b`)).message).toMatch(/there are: 0000:90:00.0/);
    expect(thrownBy(() => recordedSpec('recording:')).code).toBe('ERR_SPEC');
    expect(thrownBy(() => recordedSpec('recording:/no/such/file')).code).toBe('ERR_FILE');
  });

  it('is not played if its file has changed meanwhile', () => {
    const file = recorded('qat,size=64K', (_, v2) => saveV2(v2));
    const spec = recordedSpec(`recording:${file}`);
    const text = readFileSync(file, 'utf8').split('\n');
    writeFileSync(file, [...text.slice(0, 4), ''].join('\n'));
    expect(thrownBy(() => fillTape(spec, new Uint8Array(spec.tape))).code).toBe('ERR_FILE_CORRUPT');
  });
});
