import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_LINE, type RecordingLine } from '../../src/recording/format.ts';
import { callText, deviceCall, lineOf } from '../../src/recording/line.ts';
import { readRecording, type RecordingEntry } from '../../src/recording/reader.ts';
import { TraceText } from '../../src/recording/text.ts';
import { codeBlocks, documents, root } from '../docs/documents.ts';
import { cut } from '../support/bytes.ts';
import { recordingHeader } from '../support/recording-header.ts';
import { events, lines, recordings } from './lines.ts';

const schema = JSON.parse(readFileSync(`${root}/docs/recording.schema.json`, 'utf8')) as object;
const isValid = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false }).compile(schema);

function bytesOf(recording: readonly RecordingLine[]): Buffer {
  return Buffer.from(recording.map(lineOf).join(''));
}

function read(text: string | Uint8Array): RecordingEntry[] {
  return [...readRecording([typeof text === 'string' ? Buffer.from(text) : text])];
}

describe('a recording', () => {
  it('is read as it was written, however it is cut into pieces', () => {
    fc.assert(
      fc.property(
        recordings,
        fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 20 }),
        (all, sizes) => {
          expect([...readRecording(cut(bytesOf(all), sizes))]).toEqual(all);
        },
      ),
    );
  });

  it('that is cut anywhere is read to there, and what is left is told', () => {
    fc.assert(
      fc.property(recordings, fc.nat(), (all, where) => {
        const whole = bytesOf(all);
        const at = 1 + (where % (whole.length - 1));
        const complete = whole.subarray(0, at).toString('latin1').split('\n');
        const rest = complete.pop()?.length ?? 0;
        const expected: RecordingEntry[] = all.slice(0, complete.length);
        if (rest > 0) expected.push({ kind: 'cut', line: complete.length + 1, bytes: rest });
        expect(read(whole.subarray(0, at))).toEqual(expected);
      }),
    );
  });

  it('has lines that the schema allows', () => {
    expect(isValid(recordingHeader())).toBe(true);
    fc.assert(
      fc.property(lines, (line) => {
        expect(isValid(line), JSON.stringify(isValid.errors)).toBe(true);
      }),
    );
  });

  it('has the calls of devices as they were told, by hand and in JSON', () => {
    fc.assert(
      fc.property(events, ({ time: _time, ...event }) => {
        const { state, ...rest } = JSON.parse(`{${callText({ time: 0, ...event })}}`) as Record<string, unknown>;
        const { state: own, ...told } = event as Record<string, unknown>;
        expect(rest).toEqual(told);
        if (own !== undefined) expect(state).toBe(own);
      }),
    );
    const event = {
      time: 1,
      protocol: 'v1',
      call: 'register',
      access: 'write',
      register: 'device_state',
      value: 0xffe2,
    };
    expect(deviceCall(event as never)).toMatchObject({ value: 0xffe2, state: 'STOP_COPY' });
  });

  it('prints each line for people in one line, whatever is in it', () => {
    fc.assert(
      fc.property(recordings, (all) => {
        const printer = new TraceText();
        // oxlint-disable-next-line no-control-regex -- what a terminal would obey
        for (const line of all) expect(printer.lineOf(line)).toMatch(/^[^\n\r\u001B]+\n$/);
      }),
    );
  });
});

describe('a line that is none of a recording', () => {
  const first = lineOf(recordingHeader());
  const good = { kind: 'access', begin: 1, us: 2, pid: 3, tid: 3, call: { protocol: 'v2', call: 'reset' }, result: 0 };
  const withCall = (call: object): object => ({ ...good, call });
  const cases: readonly (readonly [line: unknown, why: string])[] = [
    [[], 'it is [], not an object'],
    [{ kind: 'other' }, 'kind is "other", not "recording" or "access"'],
    [{ ...good, us: -1 }, 'us is -1, not a whole number from 0 on'],
    [{ ...good, us: 1e300 }, 'us is 1e+300, not a whole number'],
    [{ ...good, begin: undefined }, 'begin is missing, not a whole number'],
    [{ ...good, result: undefined }, 'result is missing, not what it must be without an errno'],
    [{ ...good, result: undefined, errno: 'EWHAT' }, 'errno is "EWHAT", not the name of an errno'],
    [{ ...good, errno: 'toString' }, 'errno is "toString", not the name of an errno'],
    [{ ...good, device: 7 }, 'device is 7, not text'],
    [{ ...good, device: 'x'.repeat(5000) }, 'device is "xxx'],
    [withCall({ protocol: 'v3' }), 'call.protocol is "v3", not "v1" or "draft-2018"'],
    [withCall({ protocol: 'v2', call: 'constructor' }), 'call.call is "constructor", not "get-state"'],
    [withCall({ protocol: 'v2', call: 'get-state' }), 'call.state is missing'],
    [
      withCall({ protocol: 'v2', call: 'get-state', state: 'A\u001B[2J' }),
      'call.state is "A\\u001b[2J", not the name of a state',
    ],
    [
      withCall({ protocol: 'v1', call: 'register', access: 'read', register: 'data_size', value: '1' }),
      'call.value is "1"',
    ],
    [{ ...good, driver: {} }, 'driver is {}, not a list of up to 256'],
    [{ ...good, driver: Array.from({ length: 257 }, () => ({})) }, 'driver is [{},{}'],
    [{ ...good, driver: [{ protocol: 'v2', call: 'reset' }] }, 'driver[0].time is missing'],
    [{ ...good, data: { bytes: 1, sha256: 'x' } }, 'data.sha256 is "x", not a sha-256'],
    [{ ...good, moved: { direction: 'up', bytes: 1 } }, 'moved.direction is "up", not "out" or "in"'],
    [{ kind: 'end', time: 1, why: 'tired' }, 'why is "tired"'],
    [recordingHeader(), 'a second header'],
  ];
  it.each(cases)('%#', (line, why) => {
    const text = first + lineOf(good as never) + `${JSON.stringify(line)}\n`;
    expect(() => read(text)).toThrow(`recording: line 3: ${why}`);
  });

  it('is told with its number, if it is no JSON, no UTF-8, too long or behind the end', () => {
    expect(() => read(`${first}{"kind":\n`)).toThrow('recording: line 2: is no JSON');
    expect(() => read(Buffer.concat([Buffer.from(first), Buffer.from([0x22, 0xff, 0x22, 0x0a])]))).toThrow(
      'recording: line 2: is no JSON',
    );
    expect(() => read(`${first}"${'x'.repeat(MAX_LINE)}`)).toThrow(
      `recording: line 2: is longer than ${MAX_LINE} bytes`,
    );
    const end = lineOf({ kind: 'end', time: 1, why: 'ended' });
    expect(() => read(first + end + end)).toThrow('recording: line 3: end behind the end');
  });

  it('is no header, or one of another version', () => {
    for (const text of ['null\n', '{}\n', lineOf(good as never)])
      expect(() => read(text)).toThrow('recording: line 1: is no header of a recording');
    expect(() => read('')).toThrow('recording: line 1: the file is empty');
    expect(() => read(lineOf(recordingHeader({ version: 2 })))).toThrow(
      'is of version 2, this program reads version 1',
    );
  });
});

describe('docs/recording.md', () => {
  const text = documents.find(({ path }) => path.endsWith('docs/recording.md'))?.text ?? '';
  const examples = codeBlocks(text, 'json').flatMap((block) => block.trim().split('\n'));

  it('shows lines that the reader takes and the schema allows, and how they are printed', () => {
    expect(examples.length).toBeGreaterThan(6);
    for (const line of examples)
      expect(isValid(JSON.parse(line)), `${line}\n${JSON.stringify(isValid.errors)}`).toBe(true);
    const printer = new TraceText();
    const printed = read(`${examples.join('\n')}\n`).map((line) => printer.lineOf(line));
    expect(codeBlocks(text, 'text')[0]).toBe(printed.join(''));
  });
});
