import * as fc from 'fast-check';
import { assert, describe, expect, it } from 'vitest';
import { ShimError } from '../../src/error.ts';
import { StreamReader } from '../../src/qemu-stream/stream-reader.ts';
import { StreamWriter } from '../../src/qemu-stream/stream-writer.ts';
import { endsSection, streamTag, WORD_SIZE, type StreamEvent, type StreamTag } from '../../src/qemu-stream/stream.ts';

/** A record with its bytes in one piece. */
interface Whole {
  readonly tag: StreamTag;
  readonly bytes: Uint8Array;
}

const bare = (tag: StreamTag): Whole => ({ tag, bytes: new Uint8Array(0) });
const blob = fc.uint8Array({ maxLength: 40 });

const setup = fc.constant([bare('DEV_SETUP_STATE'), bare('END_OF_STATE')]);
const dataSection = fc
  .tuple(fc.array(blob, { maxLength: 4 }), fc.constantFrom('END_OF_STATE' as const, 'DEV_INIT_DATA_SENT' as const))
  .map(([data, end]): Whole[] => data.map((bytes): Whole => ({ tag: 'DEV_DATA_STATE', bytes })).concat(bare(end)));
const config = blob.map((bytes): Whole[] => [{ tag: 'DEV_CONFIG_STATE', bytes }, bare('END_OF_STATE')]);

/** Sections in any order, a configuration at the end or none. */
const records = fc
  .tuple(fc.array(fc.oneof(setup, dataSection), { maxLength: 5 }), fc.option(config, { nil: [] }))
  .map(([sections, last]) => sections.flat().concat(last));

function encode(whole: readonly Whole[]): Uint8Array {
  const chunks = whole.flatMap(({ tag, bytes }) =>
    StreamWriter.record(tag === 'DEV_DATA_STATE' || tag === 'DEV_CONFIG_STATE' ? { tag, bytes } : { tag }),
  );
  return new Uint8Array(Buffer.concat(chunks));
}

/** Size of the configuration in `whole`; `undefined` where there is none. */
const configSizeOf = (whole: readonly Whole[]): number | undefined =>
  whole.find(({ tag }) => tag === 'DEV_CONFIG_STATE')?.bytes.length;

/** Parses, and checks on the way that pieces are contiguous, not empty, and as many bytes as the record says. */
function decode(chunks: readonly Uint8Array[], configSize?: number): Whole[] {
  const reader = new StreamReader(configSize === undefined ? {} : { configSize });
  const whole: { tag: StreamTag; size: number | undefined; pieces: Uint8Array[] }[] = [];
  const take = (event: StreamEvent): void => {
    if (event.kind === 'record') whole.push({ tag: event.tag, size: event.size, pieces: [] });
    const last = whole.at(-1);
    expect(event).toMatchObject({ index: whole.length - 1, tag: last?.tag, size: last?.size });
    if (event.kind === 'record') return;
    assert.equal(
      event.at,
      last?.pieces.reduce((sum, piece) => sum + piece.length, 0),
    );
    assert.notEqual(event.bytes.length, 0);
    last?.pieces.push(event.bytes);
  };
  for (const chunk of chunks) for (const event of reader.push(chunk)) take(event);
  for (const event of reader.end()) take(event);
  return whole.map(({ tag, size, pieces }) => {
    const bytes = new Uint8Array(Buffer.concat(pieces));
    expect(bytes).toHaveLength(size ?? bytes.length);
    return { tag, bytes };
  });
}

/** Cuts `stream` into chunks of the given sizes, repeated; 0 makes an empty chunk. */
function cut(stream: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(stream.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

const chunkSizes = fc
  .array(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 6 })
  .filter((sizes) => sizes.some((size) => size > 0));

/** What decode() returns, or the code and message of the error it throws. */
function outcome(chunks: readonly Uint8Array[], configSize?: number): Whole[] | { code: string; message: string } {
  try {
    return decode(chunks, configSize);
  } catch (error) {
    if (error instanceof ShimError) return { code: error.code, message: error.message };
    throw error;
  }
}

/** Offsets of the tags, in order. */
function tagOffsets(whole: readonly Whole[]): number[] {
  let offset = 0;
  return whole.map(({ tag, bytes }) => {
    const at = offset;
    offset += WORD_SIZE + bytes.length + (tag === 'DEV_DATA_STATE' ? WORD_SIZE : 0);
    return at;
  });
}

describe('StreamReader and StreamWriter', () => {
  it('parse what they wrote, cut into any chunks, with and without a known configuration size', () => {
    fc.assert(
      fc.property(records, chunkSizes, fc.boolean(), (whole, sizes, sizeKnown) => {
        const stream = encode(whole);
        const parsed = decode(cut(stream, sizes), sizeKnown ? configSizeOf(whole) : undefined);
        expect(parsed).toEqual(whole);
        expect(encode(parsed)).toEqual(stream);
      }),
    );
  });

  it('report ERR_STREAM_TRUNCATED for a stream cut anywhere but behind a section', () => {
    const truncated = expect.objectContaining({ code: 'ERR_STREAM_TRUNCATED' });
    fc.assert(
      fc.property(records, chunkSizes, fc.boolean(), (whole, sizes, sizeKnown) => {
        const stream = encode(whole);
        const offsets = [...tagOffsets(whole), stream.length];
        const boundaries = new Map([[0, 0]]);
        whole.forEach(({ tag }, i) => endsSection(tag) && boundaries.set(offsets[i + 1] ?? 0, i + 1));
        const configSize = sizeKnown ? configSizeOf(whole) : undefined;
        for (let length = 0; length < stream.length; length++) {
          const complete = boundaries.get(length);
          const expected = complete === undefined ? truncated : whole.slice(0, complete);
          expect(outcome(cut(stream.subarray(0, length), sizes), configSize)).toEqual(expected);
        }
      }),
      { numRuns: 40 },
    );
  });

  const corruption = fc.record({ byte: fc.nat(WORD_SIZE - 1), flip: fc.integer({ min: 1, max: 255 }), pick: fc.nat() });

  it('report ERR_STREAM_CORRUPT with value and offset for a tag with a wrong byte that makes it unknown', () => {
    fc.assert(
      fc.property(records, chunkSizes, corruption, (whole, sizes, { byte, flip, pick }) => {
        fc.pre(whole.length > 0);
        const stream = encode(whole);
        const offset = tagOffsets(whole)[pick % whole.length] ?? 0;
        stream[offset + byte]! ^= flip;
        const value = new DataView(stream.buffer).getBigUint64(offset);
        fc.pre(streamTag(value) === undefined);
        expect(outcome(cut(stream, sizes), configSizeOf(whole))).toEqual({
          code: 'ERR_STREAM_CORRUPT',
          message: `reading a record tag at offset ${offset}: unknown tag 0x${value.toString(16).padStart(16, '0')}`,
        });
      }),
    );
  });

  it('never take a tag that was exchanged for another known one for the original stream', () => {
    fc.assert(
      fc.property(records, chunkSizes, fc.nat(), fc.integer({ min: 1, max: 5 }), (whole, sizes, pick, low) => {
        fc.pre(whole.length > 0);
        const stream = encode(whole);
        const at = (tagOffsets(whole)[pick % whole.length] ?? 0) + WORD_SIZE - 1;
        fc.pre(stream[at] !== low);
        stream[at] = low;
        expect(outcome(cut(stream, sizes), configSizeOf(whole))).not.toEqual(whole);
      }),
    );
  });
});
