import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { presentV1 } from '../../src/bridge/present-v1.ts';
import { presentV2 } from '../../src/bridge/present-v2.ts';
import { replayable, replayDevice, type DeviceReplay, type ReplayOptions } from '../../src/replay/index.ts';
import { createSim, parseSpec, type Sim } from '../../src/sim/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { NAME, TestRecorder } from './recorder.ts';

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'shim-replay-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const newFile = (): string => join(directory, `recording${(count += 1)}`);

const sim = (spec: string): Sim => createSim(parseSpec(spec));

/** A simulated device as an old VMM sees it, and as a new one does. */
function shownV1(spec: string): V1Device {
  const found = sim(spec);
  found.device.reset(); // as whoever opens it does
  if (found.protocol === 'v1') return found.device;
  if (found.protocol === 'v2') return presentV1(found.device, { dataSection: new Uint8Array(1 << 20) });
  throw new Error(spec);
}
function shownV2(spec: string): V2Device {
  const found = sim(spec);
  if (found.protocol === 'v2') return found.device;
  if (found.protocol === 'v1') return presentV2(found.device);
  throw new Error(spec);
}

function saveV1(device: V1Device): Uint8Array[] {
  const buffers: Uint8Array[] = [];
  const save = new V1Save(device, (bytes) => buffers.push(bytes.slice()));
  save.setup();
  for (let n = 0; n < 3 && save.pending() > 0; n += 1) save.iterate();
  save.stop();
  save.complete();
  return buffers;
}

function saveV2(device: V2Device): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const save = new V2Save(device, (bytes) => pieces.push(bytes.slice()));
  save.setup();
  if (save.pending() > 0) save.iterate();
  save.stop();
  save.complete();
  return pieces;
}

function restoreV1(device: V1Device, buffers: readonly Uint8Array[]): void {
  const restore = new V1Restore(device);
  restore.setup();
  for (const buffer of buffers) restore.load(buffer);
  restore.complete();
}

function recordedSave(spec: string): string {
  const recorder = new TestRecorder(spec).opened();
  saveV1(recorder.v1(shownV1(spec)));
  return recorder.write(newFile());
}

function recordedRestore(
  spec: string,
  from: string,
  options: ConstructorParameters<typeof TestRecorder>[1] = {},
): string {
  const recorder = new TestRecorder(spec, options).opened();
  restoreV1(recorder.v1(shownV1(spec)), saveV1(shownV1(from)));
  return recorder.write(newFile());
}

function replay(file: string, device: Sim, options: Partial<ReplayOptions> = {}): DeviceReplay {
  const recording = replayable(file);
  const [used] = recording.devices;
  if (used === undefined) throw new Error('no device');
  return replayDevice(recording, used, device, { strict: false, contents: true, warn: () => {}, ...options });
}

describe('replay of what a VMM did', () => {
  it.each(['qat,size=64K,seed=3', 'mlx5,size=64K,seed=3', 'vendor-v1,size=64K,seed=3', 'hisi-v1,seed=3'])(
    'to %s: the same device answers the same, to every bit',
    (spec) => {
      const file = recordedSave(spec);
      const found = replay(file, sim(spec), { strict: true });
      expect(found).toMatchObject({ differences: [], skipped: { unknown: 0, lost: 0 }, departed: null });
      expect(found.replayed).toBeGreaterThan(8);
      expect(found.replayed).toBe(found.calls);
    },
  );

  it.each(['qat,size=64K,seed=3', 'vendor-v1,size=64K,seed=3'])('of v2 to %s, in both directions', (spec) => {
    const saved = new TestRecorder(spec).opened();
    const pieces = saveV2(saved.v2(shownV2(spec)));
    expect(replay(saved.write(newFile()), sim(spec), { strict: true }).differences).toEqual([]);

    const loaded = new TestRecorder(spec).opened();
    const restore = new V2Restore(loaded.v2(shownV2(spec.replace('seed=3', 'seed=0'))));
    restore.setup();
    for (const piece of pieces) restore.load(piece);
    restore.complete();
    const device = sim(spec.replace('seed=3', 'seed=0'));
    expect(replay(loaded.write(newFile()), device, { strict: true }).differences).toEqual([]);
    expect(device.bar).toBeBytes(sim(spec).bar);
  });

  it('gives a destination the data that the recorded one got', () => {
    const file = recordedRestore('qat,size=64K', 'qat,size=64K,seed=3');
    const device = sim('qat,size=64K');
    expect(replay(file, device).differences).toEqual([]);
    expect(device.bar).toBeBytes(sim('qat,size=64K,seed=3').bar);
  });

  it('says in which line another device has other data, once for a session', () => {
    const file = recordedSave('qat,size=64K,seed=3');
    const found = replay(file, sim('hisi,size=64K,seed=3'));
    expect(found.differences.map(({ aspect }) => aspect)).toEqual(['contents']);
    const [first] = found.differences;
    const lines = readFileSync(file, 'utf8').split('\n');
    expect(JSON.parse(lines[(first?.line ?? 0) - 1] ?? '')).toMatchObject({
      call: { register: 'data_size', access: 'read' },
    });
    expect(first?.call).toMatch(/^data_size -> /);
  });

  it('stops where a destination refuses the state, and says so once', () => {
    const file = recordedRestore('qat,size=64K', 'qat,size=64K,seed=3');
    const found = replay(file, sim('hisi,size=64K'));
    expect(found.differences).toMatchObject([{ aspect: 'errno', recorded: 'success', replayed: 'EINVAL' }]);
    expect(found.skipped.lost).toBeGreaterThan(0);
  });

  it('expects the errors that were recorded, at their place', () => {
    const spec = 'qat,size=64K,fault=STOP_COPY@1:EIO';
    const recorder = new TestRecorder(spec).opened();
    const device = recorder.v1(shownV1(spec));
    expect(outcome(() => saveV1(device))).toBe('EIO');
    const file = recorder.write(newFile());
    expect(replay(file, sim(spec)).differences).toEqual([]);
    const [first] = replay(file, sim('qat,size=64K')).differences;
    expect(first).toMatchObject({ aspect: 'errno', recorded: 'EIO', replayed: 'success' });
  });

  it('does not mind what a guest changes in pre-copy, unless it is strict', () => {
    const file = recordedSave('vendor-v1,size=64K,seed=3,section=64K,dirty=2');
    const device = (): Sim => sim('vendor-v1,size=64K,seed=3,section=64K,dirty=0');
    const found = replay(file, device(), { contents: false });
    expect(found.differences).toEqual([]);
    expect(found.departed).not.toBeNull();
    expect(replay(file, device(), { strict: true }).differences.length).toBeGreaterThan(0);
  });

  it('minds another size in stop-and-copy', () => {
    const file = recordedSave('pds,size=64K,seed=3'); // it has no pre-copy
    const [first] = replay(file, sim('pds,size=32K,seed=3')).differences;
    expect(first).toMatchObject({ aspect: 'size', call: expect.stringMatching(/^data_size -> /) });
  });

  it('asks nothing of a device if the data that the VMM gave were not kept', () => {
    const file = recordedRestore('qat,size=64K', 'qat,size=64K,seed=3', { keepData: false });
    const error = thrownBy(() => replayable(file));
    expect(error.code).toBe('ERR_ARGUMENT');
    expect(error.message).toMatch(/line \d+: the VMM gave data .* --record-data$/);
  });

  it('believes no data that are not those of the recording', () => {
    const file = recordedRestore('qat,size=64K', 'qat,size=64K,seed=3');
    const data = readFileSync(`${file}.data`);
    data[5] = (data[5] ?? 0) ^ 1;
    writeFileSync(`${file}.data`, data);
    expect(thrownBy(() => replay(file, sim('qat,size=64K'))).code).toBe('ERR_FILE_CORRUPT');
    writeFileSync(`${file}.data`, data.subarray(0, 10));
    expect(thrownBy(() => replay(file, sim('qat,size=64K'))).code).toBe('ERR_FILE_CORRUPT');
  });

  it('leaves out what a recording does not tell, and counts it', () => {
    const recorder = new TestRecorder('qat').opened();
    const device = recorder.v1(shownV1('qat,size=64K'));
    expect(outcome(() => device.write(2, new Uint8Array(1)))).toBe('EINVAL');
    expect(outcome(() => device.read(2, new Uint8Array(1)))).toBe('EINVAL');
    const found = replay(recorder.write(newFile()), sim('qat,size=64K'));
    expect(found).toMatchObject({ calls: 2, replayed: 1, skipped: { unknown: 1, lost: 0 }, differences: [] });
  });

  it('goes on behind a reset, where a new user finds the device running', () => {
    const recorder = new TestRecorder('qat').opened();
    const device = recorder.v1(shownV1('qat,size=64K'));
    device.write(0, Uint8Array.of(V1.RESUMING, 0, 0, 0));
    device.reset();
    recorder.opened();
    saveV1(device);
    const file = recorder.write(newFile());
    expect(replay(file, sim('qat,size=64K'), { strict: true }).differences).toEqual([]);
    const found = replay(file, sim('qat,size=64K,fault=RESUMING@1:EIO'));
    expect(found.differences).toMatchObject([{ aspect: 'errno', replayed: 'EIO' }]);
    expect(found.replayed).toBe(found.calls);
  });

  it('refuses drafts, and recordings in which nobody used a device', () => {
    const none = new TestRecorder('qat').write(newFile());
    expect(thrownBy(() => replayable(none)).code).toBe('ERR_FEATURE_UNSUPPORTED');
    const recorder = new TestRecorder('qat').opened();
    const call = { protocol: 'draft-2018', call: 'reset' } as const;
    recorder.add({ kind: 'access', begin: 0, us: 1, pid: 1, tid: 1, device: NAME, call, result: 0 });
    expect(thrownBy(() => replayable(recorder.write(newFile()))).message).toMatch(/line 3: the VMM spoke draft-2018/);
  });

  it.each([{ 'data-size': 2 ** 40 }, { 'buffer-size': 0 }, { 'buffer-size': '1M' }])(
    'refuses %j, which no command can have had',
    (options) => {
      const recorder = new TestRecorder('qat', { options }).opened();
      recorder.v1(shownV1('qat,size=64K')).reset();
      expect(thrownBy(() => replay(recorder.write(newFile()), sim('qat,size=64K'))).code).toBe('ERR_FILE_CORRUPT');
    },
  );
});
