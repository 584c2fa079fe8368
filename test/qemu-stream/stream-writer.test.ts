import { describe, expect, it } from 'vitest';
import { StreamWriter } from '../../src/qemu-stream/stream-writer.ts';
import { streamTag, VFIO_MIG_FLAG } from '../../src/qemu-stream/stream.ts';

const hex = (chunks: readonly Uint8Array[]): string => Buffer.concat(chunks).toString('hex');
const data = Uint8Array.of(0xaa, 0xbb);

describe('StreamWriter', () => {
  it('writes the layout of each section', () => {
    expect(hex(StreamWriter.setupSection())).toBe('ffffffffef100003ffffffffef100001');
    expect(hex(StreamWriter.dataSection([data]))).toBe('ffffffffef1000040000000000000002aabbffffffffef100001');
    expect(hex(StreamWriter.dataSection([], 'DEV_INIT_DATA_SENT'))).toBe('ffffffffef100005');
    expect(hex(StreamWriter.configSection(data))).toBe('ffffffffef100002aabbffffffffef100001');
  });

  it('hands out the data it was given, not a copy', () => {
    expect(StreamWriter.record({ tag: 'DEV_DATA_STATE', bytes: data })[1]).toBe(data);
    expect(StreamWriter.dataSection([[data, data]]).slice(1, 3)).toEqual([data, data]);
    expect(StreamWriter.configSection(data)[1]).toBe(data);
  });

  it('writes one record for data in several pieces', () => {
    expect(hex(StreamWriter.record({ tag: 'DEV_DATA_STATE', bytes: [data, data, data] }))).toBe(
      'ffffffffef1000040000000000000006aabbaabbaabb',
    );
  });

  it('writes sizes of 64 bits and refuses what is no size', () => {
    expect(hex([StreamWriter.dataHeader(2 ** 32 + 1)])).toBe('ffffffffef1000040000000100000001');
    for (const size of [-1, 1.5, 2 ** 53, Number.NaN]) {
      expect(() => StreamWriter.dataHeader(size)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    }
  });
});

describe('streamTag', () => {
  it('knows the tags and nothing else', () => {
    for (const [name, value] of Object.entries(VFIO_MIG_FLAG)) expect(streamTag(value)).toBe(name);
    expect(streamTag(0xffffffffef100000n)).toBeUndefined();
    expect(streamTag(0xffffffffef100007n)).toBeUndefined();
  });
});
