import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RecordingRing, RING } from '../../../src/interpose/memory/recording-ring.ts';
import { LineText, type LineWriter } from '../../../src/recording/line-writer.ts';
import { pieces } from '../../../src/recording/pieces.ts';

/** A ring for 64 units of lines, and another process's view of the same memory. */
function rings(): [RecordingRing, RecordingRing] {
  const memory = new Uint8Array(64 + 128);
  return [new RecordingRing(memory), new RecordingRing(memory)];
}

const part = fc.oneof(
  fc.constantFrom(...Object.values(pieces)),
  fc.maxSafeNat(),
  fc.constantFrom(0, 65_535, 65_536, 2 ** 32, Number.MAX_SAFE_INTEGER),
  fc.string({ unit: 'grapheme', maxLength: 9 }),
);
type Part = typeof part extends fc.Arbitrary<infer T> ? T : never;

function writeParts(to: LineWriter, parts: readonly Part[]): void {
  for (const each of parts) {
    if (typeof each === 'number') to.number(each);
    else if (typeof each === 'string') to.text(each);
    else to.piece(each);
  }
}

function textOf(parts: readonly Part[]): string {
  const text = new LineText();
  writeParts(text, parts);
  return text.written;
}

/** A line of a text; false if there was no room for it. */
function append(ring: RecordingRing, text: string): boolean {
  ring.text(text);
  return ring.commit();
}

describe('RecordingRing', () => {
  it('gives the lines that were put into it, in order, around its end too', () => {
    const line = fc.array(part, { maxLength: 5 });
    fc.assert(
      fc.property(fc.array(fc.option(line), { maxLength: 60 }), (steps) => {
        const [writer, reader] = rings();
        let expected = '';
        let got = '';
        for (const step of steps) {
          if (step === null) {
            got += Buffer.from(reader.take()).toString();
            continue;
          }
          writeParts(writer, step);
          if (writer.commit()) expected += textOf(step);
        }
        expect(got + Buffer.from(reader.take()).toString()).toBe(expected);
        expect(reader.isEmpty).toBe(true);
      }),
    );
  });

  it('takes a text that is longer than a part may be', () => {
    const memory = new Uint8Array(64 + 2 ** 16);
    const text = 'long '.repeat(4000);
    const ring = new RecordingRing(memory);
    expect(append(ring, text)).toBe(true);
    expect(Buffer.from(ring.take()).toString()).toBe(text);
  });

  it('takes no line for which there is no room, and no part of one', () => {
    const [writer, reader] = rings();
    expect(append(writer, 'x'.repeat(58))).toBe(true);
    expect(append(writer, 'yyyyy')).toBe(false);
    expect(append(writer, 'zzzz')).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe(`${'x'.repeat(58)}zzzz`);
  });

  it('has room for what was taken while a line was written', () => {
    const [writer, reader] = rings();
    expect(append(writer, 'x'.repeat(58))).toBe(true);
    writer.text('yyyy');
    expect(Buffer.from(reader.take()).toString()).toBe('x'.repeat(58));
    writer.text('zzzz');
    expect(writer.commit()).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe('yyyyzzzz');
  });

  it('keeps nothing of a line that is not to be', () => {
    const [writer, reader] = rings();
    writer.text('no');
    writer.discard();
    expect(append(writer, 'yes')).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe('yes');
  });

  it('wakes whoever sleeps, once', () => {
    const [writer, reader] = rings();
    expect(writer.wakes()).toBe(false);
    reader.sleep();
    expect([writer.wakes(), writer.wakes()]).toEqual([true, false]);
  });

  it('is closed for the first reason that there is', () => {
    const [writer, reader] = rings();
    expect(writer.state).toBe(RING.open);
    reader.close(RING.full);
    writer.close(RING.lost);
    expect(writer.state).toBe(RING.full);
  });
});
