import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { memorySource, type ByteSource } from '../../src/byte-source.ts';
import { ShimError } from '../../src/error.ts';
import { pciIdsOf, protocolOf, readVfioFile, type VfioFile } from '../../src/qemu-stream/qemu-file-devices.ts';
import { inLayout62, withData, type DataPiece, type Part } from '../../src/qemu-stream/qemu-file-rewrite.ts';
import { vfioRecords } from '../../src/qemu-stream/qemu-file.ts';

const load = (name: string): Buffer =>
  gunzipSync(readFileSync(new URL(`../vectors/${name}.migration.gz`, import.meta.url)));

const q52 = load('qemu-5.2-qat64k-mtty');
const multifd = load('qemu-10.0-multifd-qat64k');
const loadReady = load('qemu-11.1-load-ready-qat64k');
const q72 = load('qemu-7.2-mtty2-scr5a');
const q10 = load('qemu-10.0-mtty2-scr33');

const read = (file: Uint8Array): VfioFile => readVfioFile(memorySource(file));
const deviceIn = (file: Uint8Array, n = 0) => {
  const device = read(file).devices[n];
  if (device === undefined) throw new Error(`no device ${n}`);
  return device;
};
const bytesOf = (file: Uint8Array, parts: Iterable<Part>): Buffer =>
  Buffer.concat(Array.from(parts, (part) => (part instanceof Uint8Array ? part : file.subarray(part.start, part.end))));
const whole = (buffers: readonly Uint8Array[]): DataPiece[] =>
  buffers.map((bytes) => ({ size: bytes.length, at: 0, bytes }));
const dataOf = (file: Uint8Array, name: string): Buffer[] =>
  vfioRecords(file)
    .filter(({ tag, section }) => tag === 'DEV_DATA_STATE' && section.device === name)
    .map(({ bytes }) => Buffer.from(bytes));
const convert = (file: Uint8Array): Buffer => bytesOf(file, inLayout62(memorySource(file)));
const unsupported = (message: string): unknown =>
  expect.objectContaining({ code: 'ERR_FEATURE_UNSUPPORTED', message: expect.stringContaining(message) });

describe('readVfioFile', () => {
  it('tells what a file of QEMU 5.2 has: configurations in END sections, v1', () => {
    const { configuration, devices, description } = read(q52);
    expect(configuration.machine).toBe('pc-i440fx-5.2');
    expect(description?.offset).toBe(q52.lastIndexOf(Buffer.of(0, 6)) + 1);
    expect(devices).toMatchObject([
      {
        device: '0000:00:04.0/vfio',
        layout: '5.2',
        sections: { start: 1, part: 2, end: 1, full: 0 },
        data: { records: 3, bytes: 32 + 65_536 },
        config: { start: 595_624, end: 595_965 },
        tags: ['END_OF_STATE', 'DEV_CONFIG_STATE', 'DEV_SETUP_STATE', 'DEV_DATA_STATE'],
        place: { start: 196, end: 661_538 },
      },
      { device: '0000:00:05.0/vfio', layout: '5.2', data: { records: 2, bytes: 60 }, sections: { part: 1, end: 1 } },
    ]);
    expect(devices.map((device) => protocolOf(configuration, device))).toEqual(['v1', 'v1']);
  });

  it.each([
    ['multifd of QEMU 10.0', multifd, ['END_OF_STATE', 'DEV_SETUP_STATE', 'DEV_DATA_STATE']],
    [
      'multifd of QEMU 11.1 with x-migration-load-config-after-iter',
      loadReady,
      ['END_OF_STATE', 'DEV_SETUP_STATE', 'DEV_DATA_STATE', 'DEV_CONFIG_LOAD_READY'],
    ],
  ])('tells that the state is elsewhere: %s', (_, file, tags) => {
    expect(read(file).devices).toMatchObject([
      { layout: undefined, config: undefined, tags, sections: { full: 1 }, data: { records: 1, bytes: 32 } },
    ]);
  });

  it('knows PCI ids, and the protocol as far as the machine tells it', () => {
    const ids = (file: Uint8Array, n = 0): unknown => {
      const { config } = deviceIn(file, n);
      return config && pciIdsOf(memorySource(file), config);
    };
    expect(ids(q52)).toEqual({ id: '8086:4941', subsystem: '8086:4941' });
    expect(ids(q52, 1)).toEqual({ id: '4348:3253', subsystem: '4348:3253' });
    expect(protocolOf(read(q72).configuration, deviceIn(q72))).toBeUndefined();
    expect(protocolOf(read(q10).configuration, deviceIn(q10))).toBe('v2');
    const named = (machine: string): unknown => protocolOf({ ...read(q72).configuration, machine }, deviceIn(q72));
    expect(['pc-q35-8.0', 'virt-11.1', 'pc-q35-7.2', 'pc-q35-rhel9.4.0', ''].map(named)).toEqual([
      'v2',
      'v2',
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('takes a configuration that is no PCI device for one without ids', () => {
    const at = deviceIn(q52).config ?? { start: 0, end: 0 };
    const wrong = Buffer.from(q52);
    wrong.writeUInt32BE(3, at.start);
    expect(pciIdsOf(memorySource(wrong), at)).toBeUndefined();
    expect(pciIdsOf(memorySource(q52), { start: at.start, end: at.start + 259 })).toBeUndefined();
  });
});

describe('withData', () => {
  const buffers = [Buffer.alloc(5000, 1), Buffer.alloc(70_000, 2), Buffer.alloc(1, 3)];

  it.each([
    ['5.2', q52, 0],
    ['5.2, second device', q52, 1],
    ['7.2', q72, 0],
    ['10.0', q10, 0],
  ])('puts other data into a file of QEMU %s and keeps all else', (_, file, n) => {
    const device = deviceIn(file, n);
    const changed = bytesOf(file, withData(memorySource(file), device, whole(buffers)));
    expect(dataOf(changed, device.device)).toEqual(buffers);
    const others = read(file).devices.filter(({ device: name }) => name !== device.device);
    for (const { device: name } of others) expect(dataOf(changed, name)).toEqual(dataOf(file, name));
    const after = deviceIn(changed, n);
    expect(after).toMatchObject({ layout: device.layout, sections: device.sections, tags: device.tags });
    const { config = { start: 0, end: 0 } } = device;
    const { config: there = { start: 0, end: 0 } } = after;
    expect(changed.subarray(there.start, there.end)).toBeBytes(file.subarray(config.start, config.end));
    // back again, the data all in the END section
    const back = bytesOf(changed, withData(memorySource(changed), after, whole(dataOf(file, device.device))));
    expect(dataOf(back, device.device)).toEqual(dataOf(file, device.device));
    expect(back).toHaveLength(file.length);
  });

  it('writes a buffer that comes in pieces as one record', () => {
    const [first, second] = [Buffer.alloc(10, 1), Buffer.alloc(20, 2)];
    const pieces = [
      { size: 30, at: 0, bytes: first },
      { size: 30, at: 10, bytes: second },
    ];
    const changed = bytesOf(q52, withData(memorySource(q52), deviceIn(q52), pieces));
    expect(dataOf(changed, '0000:00:04.0/vfio')).toEqual([Buffer.concat([first, second])]);
  });

  it.each([multifd, loadReady])('refuses a device whose state is elsewhere', (file) => {
    expect(() => withData(memorySource(file), deviceIn(file), [])).toThrow(
      unsupported('went through multifd channels'),
    );
  });
});

describe('inLayout62', () => {
  const converted = convert(q52);

  it('moves each configuration into a FULL section behind all others, and describes it', () => {
    const { devices, description } = read(converted);
    const before = read(q52);
    expect(devices.map(({ layout, sections }) => [layout, sections.end, sections.full])).toEqual([
      ['6.2', 1, 1],
      ['6.2', 1, 1],
    ]);
    for (const [n, { device, config = { start: 0, end: 0 } }] of devices.entries()) {
      const { config: old = { start: 0, end: 0 } } = before.devices[n] ?? {};
      expect(converted.subarray(config.start, config.end)).toBeBytes(q52.subarray(old.start, old.end));
      expect(dataOf(converted, device)).toEqual(dataOf(q52, device));
      expect(description?.sizeOf(device, 0)).toBe(341 + 16);
    }
    expect(converted[(description?.offset ?? 0) - 1]).toBe(0);
  });

  it('changes nothing else', () => {
    const before = read(q52).description?.offset ?? 0;
    const after = read(converted).description?.offset ?? 0;
    // a configuration, its two tags, 31 bytes of header and 5 of footer: only header and footer are new
    expect(after - before).toBe(2 * (31 + 5));
    const firstEnd = 595_616;
    expect(converted.subarray(0, firstEnd)).toBeBytes(q52.subarray(0, firstEnd));
    const behind = 661_965; // the last END section's end
    const length = before - 1 - behind;
    const at = behind - 2 * (341 + 16);
    expect(converted.subarray(at, at + length)).toBeBytes(q52.subarray(behind, behind + length));
    const list = (file: Buffer): object[] =>
      (JSON.parse(read(file).description?.json ?? '') as { devices: object[] }).devices;
    expect(list(converted).slice(0, -2)).toEqual(list(q52));
  });

  it.each([
    ['of the layout already', q72, 'has the layout of QEMU 6.2 already'],
    ['converted before', converted, 'has the layout of QEMU 6.2 already'],
    ['without the state', multifd, 'went through multifd channels'],
    ['without a description', q52.subarray(0, -1), 'it is cut short, or its machine describes no sections'],
    ['without a VFIO device', withoutDevices(), 'it has no VFIO device'],
  ])('refuses a file %s', (_, file, message) => {
    expect(() => convert(file)).toThrow(unsupported(message));
  });

  it('refuses a description that does not end with the list of devices', () => {
    const json = Buffer.from('{"devices": [], "more": [1]}');
    const at = read(q52).description?.offset ?? 0;
    const head = Buffer.alloc(5);
    head.writeUInt8(6);
    head.writeUInt32BE(json.length, 1);
    expect(() => convert(Buffer.concat([q52.subarray(0, at), head, json]))).toThrow(unsupported('does not end with'));
  });
});

/** Magic, version and the EOF byte. */
function withoutDevices(): Buffer {
  return Buffer.concat([Buffer.from('QEVM'), Buffer.of(0, 0, 0, 3, 0)]);
}

describe('a hostile file', () => {
  /** The most that is asked for at once, and how often. */
  function counted(bytes: Uint8Array): ByteSource & { most: number } {
    const inner = memorySource(bytes);
    return {
      size: inner.size,
      most: 0,
      read(into, position) {
        this.most = Math.max(this.most, into.length);
        return inner.read(into, position);
      },
    };
  }

  /** Reads and rewrites a file; what comes of it is a result or an error with a code, and little memory. */
  function survives(bytes: Uint8Array): string {
    const source = counted(bytes);
    try {
      const file = readVfioFile(source);
      for (const device of file.devices) {
        if (device.config !== undefined) pciIdsOf(source, device.config);
        if (device.layout !== undefined) void [...withData(source, device, [])];
      }
      void [...inLayout62(source, file)];
      return 'read';
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      if (error.code.startsWith('ERR_STREAM_')) expect(error.message).toMatch(/offset \d+|file header/);
      return error.code;
    } finally {
      expect(source.most).toBeLessThanOrEqual(Math.max(65_536, bytes.length));
    }
  }

  const small = [multifd, loadReady];
  /** The vector of QEMU 5.2 without the pages of RAM: what interests is where the sections of VFIO devices are. */
  const interesting = [
    0,
    100,
    190,
    300,
    583_098,
    595_490,
    595_790,
    661_340,
    661_640,
    661_700,
    674_000,
    q52.length - 300,
  ];

  it('is truncated wherever a file of QEMU 5.2 is cut before its first FULL section', () => {
    const end = 661_965;
    const at = fc.oneof(
      fc.nat(end),
      fc.constantFrom(...interesting).chain((from) => fc.integer({ min: from, max: from + 120 })),
    );
    fc.assert(
      fc.property(at, (length) => {
        fc.pre(length <= end);
        expect(survives(q52.subarray(0, length))).toBe('ERR_STREAM_TRUNCATED');
      }),
      { numRuns: 60 },
    );
  });

  it('is truncated or lacks its description, wherever a file of multifd is cut', () => {
    const [file = Buffer.of()] = small;
    const ends = deviceIn(file).place.end;
    for (let length = 0; length < 620; length += 1)
      expect(survives(file.subarray(0, length))).toBe('ERR_STREAM_TRUNCATED');
    for (const length of [ends - 1, 13_240]) expect(survives(file.subarray(0, length))).toBe('ERR_STREAM_TRUNCATED');
    expect(survives(file.subarray(0, ends))).toBe('ERR_FEATURE_UNSUPPORTED');
  });

  it('with any byte or length changed is read, or refused with the offset', () => {
    const place = fc.oneof(
      fc.tuple(fc.constant(q52), fc.constantFrom(...interesting), fc.nat(140)),
      fc.tuple(fc.constantFrom(...small), fc.constant(0), fc.nat(700)),
      fc.tuple(fc.constantFrom(...small), fc.constant(13_230), fc.nat(60)),
    );
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 12 }),
      fc.constantFrom(Buffer.alloc(8, 0xff), Buffer.alloc(4, 0xff), Buffer.from('001fffffffffffff', 'hex')),
      fc.bigInt({ min: 0n, max: 7n }).map((low) => Buffer.from((0xffffffffef100000n + low).toString(16), 'hex')),
    );
    fc.assert(
      fc.property(place, bytes, ([file, from, more], change) => {
        const hostile = Buffer.from(file);
        hostile.set(change.subarray(0, Math.max(0, hostile.length - from - more)), from + more);
        expect(survives(hostile)).toMatch(/^read$|^ERR_(STREAM_CORRUPT|STREAM_TRUNCATED|FEATURE_UNSUPPORTED)$/);
      }),
      { numRuns: 200 },
    );
  });

  it('of any bytes is refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (bytes, valid) => {
        const head = valid ? Buffer.from('QEVM\0\0\0\u0003', 'latin1') : Buffer.of();
        expect(survives(Buffer.concat([head, bytes]))).not.toBe('read');
      }),
    );
  });
});
