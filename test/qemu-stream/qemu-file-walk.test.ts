import { describe, expect, it } from 'vitest';
import { RAM_SAVE_FLAG as RAM } from '../../src/qemu-stream/qemu-file-ram.ts';
import { vfioRecords, vfioSections } from '../../src/qemu-stream/qemu-file.ts';
import { StreamWriter } from '../../src/qemu-stream/stream-writer.ts';
import { tagBytes } from '../../src/qemu-stream/stream.ts';

const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const u64 = (value: number): Buffer => Buffer.concat([u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32)]);
const name = (text: string): Buffer => Buffer.concat([Buffer.of(text.length), Buffer.from(text)]);

type Payload = readonly Uint8Array[];
const footer = (id: number): Buffer => Buffer.concat([Buffer.of(0x7e), u32(id)]);
/** A START or FULL section. */
const opening = (type: number, id: number, device: string, payload: Payload, instance = 0): Buffer =>
  Buffer.concat([Buffer.of(type), u32(id), name(device), u32(instance), u32(1), ...payload, footer(id)]);
/** A PART or END section. */
const going = (type: number, id: number, payload: Payload): Buffer =>
  Buffer.concat([Buffer.of(type), u32(id), ...payload, footer(id)]);
const subsection = (title: string, ...fields: Buffer[]): Buffer =>
  Buffer.concat([Buffer.of(5), name(title), u32(1), ...fields]);

const magic = Buffer.concat([Buffer.from('QEVM'), u32(3)]);
const configuration = Buffer.concat([Buffer.of(7), u32(4), Buffer.from('test')]);
const eos = u64(RAM.EOS);
const blocks = [u64(8192 + RAM.MEM_SIZE), name('pc.ram'), u64(8192)];
const page = (flags: number, ...rest: Buffer[]): Buffer => Buffer.concat([u64(4096 + flags), ...rest]);
const device = '0000:01:00.0/vfio';
const config = Buffer.from('configuration space');
const fullPayload = StreamWriter.configSection(config);

interface Parts {
  readonly head?: readonly Buffer[];
  readonly ram?: readonly Buffer[];
  readonly data?: Payload;
  readonly tail?: readonly Buffer[];
}

/** A migration file with RAM (section 1) and one VFIO device (section 2). */
function build({ head = [configuration], ram = [], data = StreamWriter.dataSection([]), tail }: Parts = {}): Buffer {
  return Buffer.concat([
    magic,
    ...head,
    opening(1, 1, 'ram', [...blocks, eos]),
    opening(1, 2, device, StreamWriter.setupSection()),
    going(2, 1, [...ram, eos]),
    going(3, 2, data),
    opening(4, 3, 'timer', [Buffer.alloc(24)]),
    ...(tail ?? [opening(4, 2, device, StreamWriter.configSection(config)), Buffer.of(0)]),
  ]);
}

/** A file of one RAM block of 8192 bytes whose pages lie at a place of their own (capability `mapped-ram`). */
function mapped(version = 1, said = 4096): Buffer {
  const pages = 4096;
  const capability = subsection('configuration/capabilities', u32(1), name('mapped-ram'));
  const head = Buffer.concat([magic, configuration, capability, opening(1, 1, 'ram', blocks).subarray(0, -5)]);
  const header = Buffer.concat([u32(version), u64(4096), u64(200), u64(said)]);
  const behind = [eos, footer(1), opening(1, 2, device, StreamWriter.setupSection())];
  const tail = [going(3, 1, [eos]), going(3, 2, StreamWriter.dataSection([])), opening(4, 2, device, fullPayload)];
  return Buffer.concat([Buffer.concat([head, header], pages), Buffer.alloc(8192), ...behind, ...tail, Buffer.of(0)]);
}

const description = (devices: readonly (object | null)[]): Buffer => {
  const json = Buffer.from(JSON.stringify({ page_size: 4096, devices }));
  return Buffer.concat([Buffer.of(0, 6), u32(json.length), json]);
};
const kinds = (file: Uint8Array): string[] => vfioSections(file).map(({ kind }) => kind);
const failure = (code: string, message: string): unknown =>
  expect.objectContaining({ code, message: expect.stringContaining(message) });

describe('vfioSections', () => {
  it('walks every kind of RAM record', () => {
    const ram = [
      page(RAM.ZERO, name('pc.ram'), Buffer.of(0)),
      page(RAM.ZERO | RAM.CONTINUE, Buffer.of(0)),
      page(RAM.PAGE | RAM.CONTINUE, Buffer.alloc(4096, 0x7e)),
      page(RAM.PAGE, name('vga'), Buffer.alloc(4096)),
      page(RAM.XBZRLE | RAM.CONTINUE, Buffer.of(1), u16(300), Buffer.alloc(300)),
      page(RAM.COMPRESS_PAGE, name('pc.ram'), u32(70_000), Buffer.alloc(70_000)),
      u64(RAM.MULTIFD_FLUSH),
    ];
    expect(kinds(build({ ram }))).toEqual(['start', 'end', 'full']);
  });

  it('takes page size and x-ignore-shared from the configuration', () => {
    const settings = [
      subsection('configuration/target-page-bits', u32(16)),
      subsection('configuration/capabilities', u32(1), name('x-ignore-shared')),
      subsection('configuration/uuid', Buffer.alloc(16)),
    ];
    const file = (...subsections: Buffer[]): Buffer =>
      Buffer.concat([
        magic,
        configuration,
        ...subsections,
        opening(1, 1, 'ram', [u64(65_536 + RAM.MEM_SIZE), name('a'), u64(65_536), u64(9), eos]),
        going(3, 1, [u64(65_536 + RAM.PAGE), name('a'), Buffer.alloc(65_536), eos]),
        Buffer.of(0),
      ]);
    expect(kinds(file(...settings))).toEqual([]);
    for (const missing of [0, 1]) {
      const rest = settings.toSpliced(missing, 1);
      expect(() => kinds(file(...rest))).toThrow(expect.objectContaining({ code: 'ERR_STREAM_CORRUPT' }));
    }
  });

  it('finds sections behind RAM whose pages lie at places of their own', () => {
    expect(vfioSections(mapped()).map(({ kind, offset }) => [kind, offset])).toEqual([
      ['start', 4096 + 8192 + 13],
      ['end', 4096 + 8192 + 13 + 52 + 18],
      ['full', 4096 + 8192 + 13 + 52 + 18 + 18],
    ]);
  });

  it('accepts a file without configuration section and with commands', () => {
    const command = Buffer.concat([Buffer.of(8), u16(11), u16(2), Buffer.of(1, 2)]);
    expect(kinds(build({ head: [] }))).toEqual(['start', 'end', 'full']);
    expect(kinds(build({ head: [configuration, command] }))).toEqual(['start', 'end', 'full']);
  });

  it('takes DEV_INIT_DATA_SENT as the end of a section', () => {
    const data = StreamWriter.dataSection([Buffer.alloc(9)], 'DEV_INIT_DATA_SENT');
    const tags = vfioRecords(build({ data })).map(({ tag }) => tag);
    expect(tags.slice(2, 4)).toEqual(['DEV_DATA_STATE', 'DEV_INIT_DATA_SENT']);
  });

  it('keeps devices of equal name apart by instance id', () => {
    const second = { device: 'vfio', instance: 1 };
    const file = Buffer.concat([
      magic,
      opening(1, 5, 'vfio', StreamWriter.setupSection(), 0),
      opening(1, 6, second.device, StreamWriter.setupSection(), second.instance),
      opening(4, 6, second.device, StreamWriter.configSection(Buffer.from('second')), second.instance),
      opening(4, 5, 'vfio', StreamWriter.configSection(Buffer.from('first')), 0),
    ]);
    const configs = vfioRecords(file).filter(({ tag }) => tag === 'DEV_CONFIG_STATE');
    expect(configs.map(({ bytes, section }) => [Buffer.from(bytes).toString(), section.instanceId])).toEqual([
      ['second', 1],
      ['first', 0],
    ]);
  });
});

describe('vfioSections of QEMU 5.2', () => {
  /** An END payload of QEMU 5.2: the configuration with an END_OF_STATE of its own, then the data. */
  const inline = (bytes: Uint8Array, data: readonly Uint8Array[] = [Buffer.alloc(9, 7)]): Payload => [
    ...StreamWriter.configSection(bytes),
    ...StreamWriter.dataSection(data),
  ];
  const of52 = (bytes: Uint8Array, data?: readonly Uint8Array[]): Buffer =>
    build({ data: inline(bytes, data), tail: [Buffer.of(0)] });
  const contents = (file: Uint8Array): unknown[] =>
    vfioRecords(file).map(({ tag, bytes, section }) => [section.kind, tag, Buffer.from(bytes).toString('latin1')]);

  it('finds the configuration in the END section, and the data behind it', () => {
    expect(contents(of52(config)).slice(2)).toEqual([
      ['end', 'DEV_CONFIG_STATE', 'configuration space'],
      ['end', 'END_OF_STATE', ''],
      ['end', 'DEV_DATA_STATE', '\u0007'.repeat(9)],
      ['end', 'END_OF_STATE', ''],
    ]);
    expect(kinds(of52(config, []))).toEqual(['start', 'end']);
  });

  it("takes an END_OF_STATE for the configuration's only if the records behind it lead to the footer", () => {
    for (const lookalike of [
      StreamWriter.dataSection([]), // and then no record
      [...StreamWriter.dataSection([]), ...StreamWriter.dataSection([])], // and then no footer
      [...StreamWriter.dataSection([]), ...StreamWriter.dataSection([]), footer(3)], // of another section
      [...StreamWriter.dataSection([]), StreamWriter.dataHeader(2 ** 40)], // beyond the file
      inline(config),
    ]) {
      const bytes = Buffer.concat([config, ...lookalike, config]);
      expect(contents(of52(bytes))[2]).toEqual(['end', 'DEV_CONFIG_STATE', bytes.toString('latin1')]);
    }
  });

  it('gives up on a configuration with too many that look like its end, and on one that is too long', () => {
    const lookalikes = Buffer.concat(Array.from({ length: 64 }, () => Buffer.concat(StreamWriter.dataSection([]))));
    const wrong = failure('ERR_STREAM_CORRUPT', 'no END_OF_STATE from which its section goes on to its end');
    expect(() => vfioSections(of52(Buffer.concat([config, lookalikes])))).toThrow(wrong);
    expect(kinds(of52(Buffer.concat([config, lookalikes.subarray(8)])))).toEqual(['start', 'end']);
    expect(kinds(of52(Buffer.alloc(2 ** 20)))).toEqual(['start', 'end']);
    expect(() => vfioSections(of52(Buffer.alloc(2 ** 20 + 1)))).toThrow(wrong);
  });

  it('refuses a second configuration', () => {
    const twice = [going(2, 2, inline(config)), going(3, 2, inline(config))];
    const file = Buffer.concat([magic, opening(1, 2, device, StreamWriter.setupSection()), ...twice, Buffer.of(0)]);
    expect(() => vfioSections(file)).toThrow(failure('ERR_STREAM_CORRUPT', 'section 2 has a configuration already'));
  });
});

describe('vfioSections FULL section', () => {
  const full = (payload: Payload): Buffer => opening(4, 2, device, payload);
  /** A configuration that holds what ends the section where nothing states its size. */
  const decoy = Buffer.concat([...StreamWriter.dataSection([]), footer(2), config]);
  const configOf = (file: Uint8Array): string[] =>
    vfioRecords(file)
      .filter(({ tag }) => tag === 'DEV_CONFIG_STATE')
      .map(({ bytes }) => Buffer.from(bytes).toString('hex'));

  it('has the size that the description states', () => {
    const payload = StreamWriter.configSection(decoy);
    const size = Buffer.concat(payload).length;
    const devices = [{ name: 'timer', instance_id: 0 }, null, { name: device, instance_id: 0, size }];
    expect(configOf(build({ tail: [full(payload), description(devices)] }))).toEqual([decoy.toString('hex')]);
  });

  it('ends at the first END_OF_STATE with its footer where no description states the size', () => {
    expect(configOf(build({ tail: [full(StreamWriter.configSection(decoy)), Buffer.of(0)] }))).toEqual(['']);
    const others = [{ name: device, instance_id: 1, size: 3 }];
    expect(configOf(build({ tail: [full(StreamWriter.configSection(config)), description(others)] }))).toEqual([
      config.toString('hex'),
    ]);
  });

  it('skips bytes that look like its header but have no footer at the stated distance', () => {
    const payload = StreamWriter.configSection(config);
    const devices = [{ name: device, instance_id: 0, size: Buffer.concat(payload).length }];
    const lookalike = opening(4, 3, 'timer', [full([]).subarray(0, -5)]);
    const file = build({ tail: [lookalike, full(payload), description(devices)] });
    expect(configOf(file)).toEqual([config.toString('hex')]);
  });

  it('can be END_OF_STATE alone, as where the configuration went through another channel', () => {
    expect(vfioRecords(build({ tail: [full(StreamWriter.dataSection([]))] })).at(-1)).toMatchObject({
      tag: 'END_OF_STATE',
      section: { kind: 'full' },
    });
  });

  it('can be DEV_CONFIG_LOAD_READY alone, described or not', () => {
    const payload = [tagBytes('DEV_CONFIG_LOAD_READY')];
    for (const end of [Buffer.of(0), description([{ name: device, instance_id: 0, size: 8 }])]) {
      expect(vfioRecords(build({ tail: [full(payload), end] })).at(-1)).toMatchObject({
        tag: 'DEV_CONFIG_LOAD_READY',
        section: { kind: 'full' },
      });
    }
  });

  it('is corrupt if its records end elsewhere than the description says', () => {
    const tooLong = [...StreamWriter.dataSection([]), Buffer.alloc(4)];
    const devices = [{ name: device, instance_id: 0, size: 12 }];
    expect(() => vfioRecords(build({ tail: [full(tooLong), description(devices)] }))).toThrow(
      failure('ERR_STREAM_CORRUPT', 'reading the FULL section at offset'),
    );
    const noRoom = [tagBytes('DEV_CONFIG_STATE')];
    const short = [{ name: device, instance_id: 0, size: 8 }];
    expect(() => vfioRecords(build({ tail: [full(noRoom), description(short)] }))).toThrow(
      failure('ERR_STREAM_CORRUPT', 'no room for a configuration'),
    );
  });

  it('is missing: corrupt in a whole file, truncated in one without description', () => {
    expect(() => vfioSections(build({ tail: [description([])] }))).toThrow(
      failure('ERR_STREAM_CORRUPT', `looking for the FULL section of "${device}" from offset`),
    );
    expect(() => vfioSections(build({ tail: [] }))).toThrow(failure('ERR_STREAM_TRUNCATED', 'not found'));
  });

  it('is found where the description is not the expected JSON', () => {
    for (const json of ['null', '[]', '{"devices": 1}', '{nonsense']) {
      const tail = [full(StreamWriter.configSection(config)), Buffer.of(0, 6), u32(json.length), Buffer.from(json)];
      expect(configOf(build({ tail }))).toEqual([config.toString('hex')]);
    }
  });
});

describe('vfioSections failures', () => {
  const capability = (text: string): Buffer => subsection('configuration/capabilities', u32(1), name(text));
  const capabilities = (count: number): Buffer =>
    subsection('configuration/capabilities', u32(count), Buffer.alloc(count));
  const many = (count: number): Buffer =>
    Buffer.concat([magic, ...Array.from({ length: count }, (_, id) => opening(1, id, 'ram', [eos]))]);
  const [setup] = StreamWriter.setupSection();
  const ramStart = Buffer.concat([magic, opening(1, 1, 'ram', [...blocks, eos])]);
  const cases: readonly (readonly [what: string, file: Buffer, message: string])[] = [
    ['another magic', Buffer.from('notaQEVM'), 'reading the file header: magic 0x6e6f7461 is not'],
    ['another version', Buffer.concat([Buffer.from('QEVM'), u32(2)]), 'version 2 is not 3'],
    ['an unknown subsection', build({ head: [configuration, subsection('x/y')] }), 'subsection "x/y" cannot be parsed'],
    ['absurd page bits', build({ head: [configuration, subsection('configuration/target-page-bits', u32(64))] }), '64'],
    ['mapped-ram of another version', mapped(2), 'reading mapped RAM at offset 104: version 2 is not 1'],
    [
      'mapped-ram whose pages lie before it',
      mapped(1, 99),
      'reading mapped RAM at offset 104: its pages lie at 99, before',
    ],
    ['too many capabilities', build({ head: [configuration, capabilities(1001)] }), 'more than 1000 capabilities'],
    ['a name that is no text', build({ head: [configuration, capability('\u001B[2J')] }), 'is not printable ASCII'],
    ['a machine name of 256 bytes', Buffer.concat([magic, Buffer.of(7), u32(256), Buffer.alloc(256)]), 'at most 255'],
    ['more that iterates than there is', many(1025), 'more than 1024 START sections'],
    ['an unknown section type', Buffer.concat([magic, Buffer.of(9)]), 'at offset 8: unknown type 9'],
    ['a PART without START', Buffer.concat([magic, going(2, 7, [])]), 'id 7 has no START section'],
    ['a section id twice', Buffer.concat([ramStart, ramStart.subarray(8)]), 'id 1 starts twice'],
    ['another device that iterates', Buffer.concat([magic, opening(1, 1, 'x', [])]), 'the payload of "x" cannot be'],
    ['postcopy', Buffer.concat([magic, Buffer.of(8), u16(3), u16(4), u32(0)]), 'postcopy cannot be parsed'],
    ['an RDMA hook', build({ ram: [u64(RAM.HOOK)] }), 'flags 0x80 cannot be parsed'],
    ['a RAM block beyond the total', build({ ram: [...blocks.slice(0, 2), u64(8193)] }), 'length 8193, at most 8192'],
    ['a huge address', build({ ram: [Buffer.alloc(8, 0xff)] }), '0xffffffffffffffff is too large'],
    ['a wrong footer', Buffer.concat([magic, opening(1, 1, 'ram', [eos, Buffer.of(0)])]), 'the footer of section 1'],
    [
      'a configuration outside FULL',
      build({ data: StreamWriter.configSection(config) }),
      'no END_OF_STATE from which its section goes on to its end',
    ],
    ['an unknown tag', build({ data: [u64(77)] }), 'unknown tag 0x000000000000004d'],
    ['a section that goes wrong', build({ data: [setup ?? u64(0), u64(1)] }), 'unknown tag 0x0000000000000001'],
  ];
  it.each(cases)('reports %s', (_, file, message) => {
    expect(() => vfioSections(file)).toThrow(failure('ERR_STREAM_CORRUPT', message));
  });

  it('reports how much of a field is missing', () => {
    expect(() => vfioSections(magic.subarray(0, 6))).toThrow(
      failure('ERR_STREAM_TRUNCATED', 'reading the file version at offset 4: 2 of 4 bytes missing'),
    );
    const name200 = Buffer.concat([magic, Buffer.of(7), u32(0xffffffff)]);
    expect(() => vfioSections(name200)).toThrow(
      failure('ERR_STREAM_TRUNCATED', 'the machine name at offset 13: 4294967295 of 4294967295 bytes missing'),
    );
  });
});
