import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { parseStatus } from '../../../src/interpose/process/status.ts';
import { ShimError } from '../../../src/error.ts';

const root = new URL('../../../', import.meta.url).pathname;
const schema = JSON.parse(readFileSync(`${root}docs/status.schema.json`, 'utf8')) as object;
const isAllowed = new Ajv2020({ strict: true, strictTypes: false }).compile(schema);
const document = readFileSync(`${root}docs/status.md`, 'utf8');
const example = /```json\n(.*?)```/s.exec(document)?.[1] ?? '';

type Fields = Record<string, unknown>;
const whole = (): Fields & { devices: Fields[] } => JSON.parse(example) as Fields & { devices: Fields[] };

function isTaken(answer: unknown): boolean {
  try {
    parseStatus(JSON.stringify(answer));
    return true;
  } catch (error) {
    if (error instanceof ShimError) return false;
    throw error;
  }
}

describe('an answer of --status', () => {
  it('is documented by an example that the reader takes and the schema allows', () => {
    expect(parseStatus(example)).toEqual(whole());
    expect([isAllowed(whole()), isAllowed.errors]).toEqual([true, null]);
  });

  it('is documented field by field', () => {
    const fields = Object.keys(whole().devices[0] ?? {});
    const [table = ''] = document.split('Nothing is asked of a driver');
    const rows = table.split('\n').filter((line) => line.startsWith('| `'));
    const documented = rows.flatMap((row) =>
      [...(row.split('|')[1] ?? '').matchAll(/`(\w+)`/g)].map(([, name]) => name),
    );
    expect(new Set(documented)).toEqual(new Set(fields));
    expect(documented).toHaveLength(fields.length);
  });

  it('may have fields and devices that are new', () => {
    const more = { ...whole(), more: 1, devices: whole().devices.map((device) => ({ ...device, more: [] })) };
    expect([isTaken(more), isAllowed(more)]).toEqual([true, true]);
    const none = { ...whole(), devices: [] };
    expect([isTaken(none), isAllowed(none)]).toEqual([true, true]);
  });

  it('is refused, by the reader as by the schema, if a field is not what it has to be', () => {
    const values = [undefined, null, -1, 0.5, 2 ** 53, 'x', '', true, [], {}, [1]];
    const judged: Record<string, unknown[]> = {};
    const judge = (path: string, value: unknown, answer: Fields): void => {
      const taken = isTaken(answer);
      // JSON knows no undefined: the field is absent
      expect([path, value, isAllowed(JSON.parse(JSON.stringify(answer)))]).toEqual([path, value, taken]);
      if (taken) (judged[path] ??= []).push(value);
    };
    for (const value of values) {
      for (const field of Object.keys(whole())) judge(field, value, { ...whole(), [field]: value });
      for (const field of Object.keys(whole().devices[0] ?? {})) {
        const devices = whole().devices.map((device) => ({ ...device, [field]: value }));
        judge(`device.${field}`, value, { ...whole(), devices });
      }
      judge('device', value, { ...whole(), devices: [value] });
    }
    expect(judged).toEqual({
      devices: [[]],
      'device.name': ['x', ''],
      'device.device': ['x', ''],
      'device.state': [null, 'x', ''],
      'device.phase': [null],
      'device.bytesDone': [null],
      'device.bytesLeft': [null],
      'device.bytesPerSecond': [null],
      'device.stopCopyBytes': [null],
      'device.downtimeMs': [null],
      'device.dirtyBytesPerSecond': [null],
    });
  });

  it.each([
    ['', 'ERR_FILE_CORRUPT'],
    ['null', 'ERR_FILE_CORRUPT'],
    ['[]', 'ERR_FILE_CORRUPT'],
    ['{"version":1', 'ERR_FILE_CORRUPT'],
    ['HTTP/1.1 400 Bad Request', 'ERR_FILE_CORRUPT'],
    ['{"version":2}', 'ERR_FILE_VERSION'],
  ])('is none if it is %j', (text, code) => {
    expect(() => parseStatus(text)).toThrow(expect.objectContaining({ code }));
  });
});
