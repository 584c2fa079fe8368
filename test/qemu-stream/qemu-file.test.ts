import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ShimError } from '../../src/error.ts';
import { replaceVfioPayloads, vfioRecords, vfioSections } from '../../src/qemu-stream/qemu-file.ts';
import { StreamWriter } from '../../src/qemu-stream/stream-writer.ts';
import type { StreamRecord } from '../../src/qemu-stream/stream.ts';

type VfioRecord = ReturnType<typeof vfioRecords>[number];

const load = (name: string): Buffer =>
  gunzipSync(readFileSync(new URL(`../vectors/${name}.migration.gz`, import.meta.url)));

const vectors = [
  {
    name: 'qemu-10.0-mtty2-scr33',
    scratch: 0x33,
    sections: [
      ['start', 197, 228, 244],
      ['part', 295_654, 295_659, 295_707],
      ['part', 677_308, 677_313, 677_321],
      ['end', 743_604, 743_609, 743_705],
      ['full', 756_434, 756_465, 760_597],
    ],
    records: [
      ['DEV_SETUP_STATE', 228, 0],
      ['END_OF_STATE', 236, 0],
      ['DEV_DATA_STATE', 295_659, 24],
      ['END_OF_STATE', 295_699, 0],
      ['END_OF_STATE', 677_313, 0],
      ['DEV_DATA_STATE', 743_609, 72],
      ['END_OF_STATE', 743_697, 0],
      ['DEV_CONFIG_STATE', 756_465, 4116],
      ['END_OF_STATE', 760_589, 0],
    ],
  },
  {
    name: 'qemu-7.2-mtty2-scr5a',
    scratch: 0x5a,
    sections: [
      ['start', 196, 227, 243],
      ['part', 673_172, 673_177, 673_225],
      ['end', 727_209, 727_214, 727_310],
      ['full', 740_039, 740_070, 744_202],
    ],
    records: [
      ['DEV_SETUP_STATE', 227, 0],
      ['END_OF_STATE', 235, 0],
      ['DEV_DATA_STATE', 673_177, 24],
      ['END_OF_STATE', 673_217, 0],
      ['DEV_DATA_STATE', 727_214, 72],
      ['END_OF_STATE', 727_302, 0],
      ['DEV_CONFIG_STATE', 740_070, 4116],
      ['END_OF_STATE', 744_194, 0],
    ],
  },
].map((vector) => Object.assign(vector, { file: load(vector.name) }));

const dataOf = (records: readonly VfioRecord[]): Uint8Array[] =>
  records.filter(({ tag }) => tag === 'DEV_DATA_STATE').map(({ bytes }) => bytes);

const rewrite = ({ tag, bytes }: VfioRecord): Uint8Array[] => {
  const record: StreamRecord = tag === 'DEV_DATA_STATE' || tag === 'DEV_CONFIG_STATE' ? { tag, bytes } : { tag };
  return StreamWriter.record(record);
};

/** The sections of a file, or the code of the error it throws. */
function outcome(file: Uint8Array): unknown {
  try {
    return vfioSections(file);
  } catch (error) {
    if (error instanceof ShimError) return error.code;
    throw error;
  }
}

describe.each(vectors)('$name', ({ file, scratch, sections, records }) => {
  it('has the sections of one device', () => {
    const found = vfioSections(file);
    expect(new Set(found.map(({ device }) => device))).toEqual(new Set(['0000:00:02.0/vfio']));
    expect(found.map(({ kind, offset, payload }) => [kind, offset, payload.start, payload.end])).toEqual(sections);
  });

  it('has two data records: the header from pre-copy and the ports from stop-and-copy', () => {
    const found = vfioRecords(file);
    expect(found.map(({ tag, offset, bytes }) => [tag, offset, bytes.length])).toEqual(records);
    const [header, ports] = dataOf(found).map((bytes) => Buffer.from(bytes));
    expect(header?.readBigUInt64LE()).toBe(0x7e9d09898c3e2c4en);
    expect(header?.readUInt32LE(16)).toBe(2);
    expect(ports?.[7]).toBe(scratch);
    expect(ports?.[36 + 7]).toBe(0);
  });

  it('is the same file again when every payload is written anew', () => {
    const rebuilt = replaceVfioPayloads(file, (_, found) => found.flatMap(rewrite));
    expect(rebuilt).toBeBytes(file);
  });

  it('parses again after data was replaced by longer, shorter and split records', () => {
    const parts = [new Uint8Array(5000).fill(0xef), new Uint8Array(0), Uint8Array.of(1, 2, 3)];
    const chunks = replaceVfioPayloads(file, ({ kind }) =>
      kind === 'part' || kind === 'end' ? StreamWriter.dataSection(parts) : undefined,
    );
    const rebuilt = Buffer.concat(chunks);
    const dataSections = sections.filter(([kind]) => kind === 'part' || kind === 'end');
    const written = dataSections.flatMap(() => parts).map((bytes) => Buffer.from(bytes));
    expect(dataOf(vfioRecords(rebuilt)).map((bytes) => Buffer.from(bytes))).toEqual(written);

    const payloads = vfioSections(file).map(({ payload }) => file.subarray(payload.start, payload.end));
    const restored = replaceVfioPayloads(rebuilt, () => payloads.splice(0, 1));
    expect(restored).toBeBytes(file);
  });

  it('carries a scratch register that was changed in the data', () => {
    const chunks = replaceVfioPayloads(file, ({ kind }, found) => {
      if (kind !== 'end') return undefined;
      const [ports] = dataOf(found).map((bytes) => Uint8Array.from(bytes));
      ports?.set([0x77], 7);
      return StreamWriter.dataSection(ports === undefined ? [] : [ports]);
    });
    const rebuilt = Buffer.concat(chunks);
    expect(rebuilt).toHaveLength(file.length);
    expect(dataOf(vfioRecords(rebuilt))[1]?.[7]).toBe(0x77);
    expect(file.filter((byte, i) => byte !== rebuilt[i])).toEqual(Buffer.of(scratch));
  });

  it('refuses another size for the FULL section', () => {
    expect(() => replaceVfioPayloads(file, ({ kind }) => (kind === 'full' ? [] : undefined))).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: 'replacing the FULL section of "0000:00:02.0/vfio": 0 bytes, it has to keep its 4132',
      }),
    );
  });

  it('gives the same sections without the description at the end of the file', () => {
    const found = vfioSections(file);
    const description = file.lastIndexOf(Buffer.of(0, 6));
    expect(vfioSections(file.subarray(0, description))).toEqual(found);
    expect(vfioSections(Buffer.concat([file, Buffer.alloc(3)]))).toEqual(found);
  });

  it('is truncated wherever it is cut before the end of the FULL section, and complete after it', () => {
    const found = vfioSections(file);
    const complete = (found.at(-1)?.payload.end ?? 0) + 5;
    const expected = (length: number): unknown => (length < complete ? 'ERR_STREAM_TRUNCATED' : found);
    fc.assert(
      fc.property(fc.nat(file.length), (length) => {
        expect(outcome(file.subarray(0, length))).toEqual(expected(length));
      }),
    );
    const edges = found.flatMap(({ offset, payload }) => [offset, payload.start, payload.end]);
    for (const length of [...edges, ...edges.map((edge) => edge + 4), complete - 1, complete]) {
      expect(outcome(file.subarray(0, length))).toEqual(expected(length));
    }
  });
});
