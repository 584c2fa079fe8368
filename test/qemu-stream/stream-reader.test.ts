import { describe, expect, it } from 'vitest';
import { StreamReader, type StreamReaderOptions } from '../../src/qemu-stream/stream-reader.ts';
import { StreamWriter } from '../../src/qemu-stream/stream-writer.ts';
import type { StreamEvent } from '../../src/qemu-stream/stream.ts';

const MiB = 2 ** 20;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const join = (chunks: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(chunks));
const ones = bytes(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);

/** Parses `chunks`; the bytes of pieces as arrays, for comparison. */
function parse(chunks: readonly Uint8Array[], options?: StreamReaderOptions): unknown[] {
  const reader = new StreamReader(options);
  const events: StreamEvent[] = chunks.flatMap((chunk) => [...reader.push(chunk)]);
  events.push(...reader.end());
  return events.map((event) => (event.kind === 'piece' ? Object.assign(event, { bytes: [...event.bytes] }) : event));
}

describe('StreamReader events', () => {
  it('reports records with index and offset, and bytes as pieces', () => {
    const stream = join([...StreamWriter.setupSection(), ...StreamWriter.dataSection([bytes(7, 8, 9)])]);
    expect(parse([stream.subarray(0, 33), stream.subarray(33)], { offset: 1000 })).toEqual([
      { kind: 'record', tag: 'DEV_SETUP_STATE', index: 0, offset: 1000, size: 0 },
      { kind: 'record', tag: 'END_OF_STATE', index: 1, offset: 1008, size: 0 },
      { kind: 'record', tag: 'DEV_DATA_STATE', index: 2, offset: 1016, size: 3 },
      { kind: 'piece', tag: 'DEV_DATA_STATE', index: 2, at: 0, size: 3, bytes: [7] },
      { kind: 'piece', tag: 'DEV_DATA_STATE', index: 2, at: 1, size: 3, bytes: [8, 9] },
      { kind: 'record', tag: 'END_OF_STATE', index: 3, offset: 1035, size: 0 },
    ]);
  });

  it('reports a data record of size 0, which QEMU 7.2 writes where data_size reads 0', () => {
    const events = parse([join(StreamWriter.dataSection([bytes()]))]);
    expect(events).toMatchObject([{ tag: 'DEV_DATA_STATE', size: 0 }, { tag: 'END_OF_STATE' }]);
  });

  it('takes DEV_INIT_DATA_SENT as the end of a section', () => {
    const section = StreamWriter.dataSection([bytes(1)], 'DEV_INIT_DATA_SENT');
    const events = parse([join([...section, ...StreamWriter.setupSection()])]);
    expect(events).toMatchObject([
      { tag: 'DEV_DATA_STATE' },
      { kind: 'piece' },
      { tag: 'DEV_INIT_DATA_SENT' },
      { tag: 'DEV_SETUP_STATE' },
      { tag: 'END_OF_STATE' },
    ]);
  });

  it('hands out views of the pushed chunks', () => {
    const chunk = join(StreamWriter.dataSection([ones]));
    const pieces = [...new StreamReader().push(chunk)].filter((event) => event.kind === 'piece');
    expect(pieces).toHaveLength(1);
    expect(pieces[0]?.bytes.buffer).toBe(chunk.buffer);
  });

  it('accepts an empty stream and empty chunks', () => {
    expect(parse([])).toEqual([]);
    expect(parse([bytes(), bytes()])).toEqual([]);
  });
});

describe('StreamReader DEV_CONFIG_STATE', () => {
  const stream = join(StreamWriter.configSection(ones));

  it('takes all but the closing tag as configuration where the size is not known', () => {
    expect(parse([stream])).toEqual([
      { kind: 'record', tag: 'DEV_CONFIG_STATE', index: 0, offset: 0, size: undefined },
      { kind: 'piece', tag: 'DEV_CONFIG_STATE', index: 0, at: 0, size: undefined, bytes: [...ones] },
      { kind: 'record', tag: 'END_OF_STATE', index: 1, offset: 18, size: 0 },
    ]);
  });

  it('takes an END_OF_STATE inside the configuration as configuration', () => {
    const inner = join(StreamWriter.dataSection([]));
    const events = parse([join(StreamWriter.configSection(inner))]);
    expect(events).toMatchObject([{ size: undefined }, { bytes: [...inner] }, { tag: 'END_OF_STATE', offset: 16 }]);
  });

  it('reads exactly configSize bytes, after which sections can follow', () => {
    const events = parse([join([stream, ...StreamWriter.setupSection()])], { configSize: 10 });
    expect(events).toMatchObject([
      { tag: 'DEV_CONFIG_STATE', size: 10 },
      { kind: 'piece', bytes: [...ones] },
      { tag: 'END_OF_STATE', offset: 18 },
      { tag: 'DEV_SETUP_STATE', offset: 26 },
      { tag: 'END_OF_STATE' },
    ]);
    expect(() => parse([stream], { configSize: 9 })).toThrow(expect.objectContaining({ code: 'ERR_STREAM_CORRUPT' }));
  });

  it('accepts an empty configuration', () => {
    const empty = join(StreamWriter.configSection(bytes()));
    const tags = [{ tag: 'DEV_CONFIG_STATE' }, { tag: 'END_OF_STATE' }];
    expect(parse([empty])).toMatchObject(tags);
    expect(parse([empty], { configSize: 0 })).toMatchObject(tags);
  });
});

describe('StreamReader sizes', () => {
  it('reports a size above 4 GiB and hands out its pieces without keeping them', () => {
    const size = 6 * 2 ** 30 + 5;
    const reader = new StreamReader();
    expect([...reader.push(StreamWriter.dataHeader(size))]).toMatchObject([{ kind: 'record', size }]);
    const chunk = new Uint8Array(MiB);
    const before = process.memoryUsage().arrayBuffers;
    for (let at = 0; at < 8 * MiB; at += MiB) {
      const [piece, ...rest] = [...reader.push(chunk)];
      expect(piece).toMatchObject({ kind: 'piece', at, size });
      expect(piece?.kind === 'piece' && piece.bytes.buffer === chunk.buffer).toBe(true);
      expect(rest).toEqual([]);
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MiB);
    expect(() => reader.end()).toThrow(
      expect.objectContaining({
        code: 'ERR_STREAM_TRUNCATED',
        message: expect.stringContaining(`${size - 8 * MiB} bytes missing`),
      }),
    );
  });

  it('accepts the largest safe integer and refuses the next size', () => {
    const header = StreamWriter.dataHeader(Number.MAX_SAFE_INTEGER);
    expect([...new StreamReader().push(header)]).toMatchObject([{ size: Number.MAX_SAFE_INTEGER }]);
    new DataView(header.buffer).setBigUint64(8, 2n ** 53n);
    expect(() => [...new StreamReader().push(header)]).toThrow(
      expect.objectContaining({ code: 'ERR_STREAM_CORRUPT', message: expect.stringContaining('9007199254740992') }),
    );
  });

  it('refuses a size above maxDataSize', () => {
    const stream = join(StreamWriter.dataSection([ones]));
    expect(parse([stream], { maxDataSize: 10 })).toHaveLength(3);
    expect(() => parse([stream], { maxDataSize: 9, offset: 50 })).toThrow(
      'reading the size of the data record at offset 50: 10 bytes (0x000000000000000a) is more than the limit of 9',
    );
  });
});

describe('StreamReader failures', () => {
  const cases: readonly (readonly [what: string, stream: readonly Uint8Array[], message: string])[] = [
    ['a tag', [bytes(255, 255, 255)], 'it ends at offset 3, expected a record tag, 5 bytes missing'],
    [
      'a size',
      [StreamWriter.dataHeader(3).subarray(0, 15)],
      'it ends at offset 15, expected the size of a DEV_DATA_STATE record, 1 byte missing',
    ],
    [
      'data',
      [StreamWriter.dataHeader(3), bytes(1)],
      'it ends at offset 17, expected 3 bytes of DEV_DATA_STATE, 2 bytes missing',
    ],
    [
      'a section after data',
      [StreamWriter.dataHeader(1), bytes(1)],
      'it ends at offset 17, expected END_OF_STATE after DEV_DATA_STATE, 8 bytes missing',
    ],
    [
      'a section after its setup',
      StreamWriter.setupSection().slice(0, 1),
      'it ends at offset 8, expected END_OF_STATE after DEV_SETUP_STATE, 8 bytes missing',
    ],
    [
      'a configuration',
      [...StreamWriter.record({ tag: 'DEV_CONFIG_STATE', bytes: bytes(1, 2) })],
      'it ends at offset 10, expected END_OF_STATE after DEV_CONFIG_STATE, 6 bytes missing',
    ],
    [
      'a configuration of 8 bytes or more',
      [...StreamWriter.record({ tag: 'DEV_CONFIG_STATE', bytes: ones })],
      'it ends at offset 18, expected END_OF_STATE after the bytes of DEV_CONFIG_STATE, 8 bytes missing',
    ],
  ];
  it.each(cases)('says what is missing where the stream ends inside %s', (_, stream, message) => {
    expect(() => parse(stream)).toThrow(expect.objectContaining({ code: 'ERR_STREAM_TRUNCATED' }));
    expect(() => parse(stream)).toThrow(message);
  });

  it('names an unknown tag and its offset, again on every later call', () => {
    const reader = new StreamReader({ offset: 100 });
    const stream = join([...StreamWriter.setupSection(), bytes(0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 0x99)]);
    const failure = expect.objectContaining({
      code: 'ERR_STREAM_CORRUPT',
      message: 'reading a record tag at offset 116: unknown tag 0xffffffffef100099',
    });
    expect(() => [...reader.push(stream)]).toThrow(failure);
    expect(() => reader.push(bytes())).toThrow(failure);
    expect(() => reader.end()).toThrow(failure);
  });

  it('refuses a known tag where it cannot stand', () => {
    const [setup] = StreamWriter.setupSection();
    const stream = join([...StreamWriter.record({ tag: 'DEV_DATA_STATE', bytes: ones }), setup ?? bytes()]);
    expect(() => parse([stream])).toThrow(
      'reading the record after DEV_DATA_STATE at offset 26: unexpected DEV_SETUP_STATE',
    );
  });

  it('refuses the next chunk while events of the one before are unread', () => {
    const reader = new StreamReader();
    reader.push(join(StreamWriter.setupSection()));
    expect(() => reader.push(bytes())).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(() => reader.end()).toThrow('reading the stream at offset 0: 16 bytes left unread');
  });
});
