import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RecordingRing, RING } from '../../../src/interpose/memory/recording-ring.ts';
import { LineText, type LineWriter } from '../../../src/recording/line-writer.ts';

/** A ring for so many units of lines, and another process's view of the same memory. */
function rings(units = 64): [RecordingRing, RecordingRing] {
  const memory = new Uint8Array(64 + 2 * units);
  return [new RecordingRing(memory), new RecordingRing(memory)];
}

const part = fc.oneof(
  fc.constantFrom('{"kind":', '}', 'é', '').map((word) => ({ word })),
  fc.maxSafeNat(),
  fc.constantFrom(0, 65_535, 65_536, 2 ** 32, Number.MAX_SAFE_INTEGER),
  fc.string({ unit: 'grapheme', maxLength: 9 }),
);
type Part = typeof part extends fc.Arbitrary<infer T> ? T : never;

function writeParts(to: LineWriter, parts: readonly Part[]): void {
  for (const each of parts) {
    if (typeof each === 'number') to.number(each);
    else if (typeof each === 'string') to.text(each);
    else to.word(each.word);
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

  it('takes a text that is longer than a unit can say', () => {
    const text = 'long '.repeat(20_000);
    const [writer, reader] = rings(2 ** 17);
    expect(append(writer, text)).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe(text);
  });

  it('takes no line for which there is no room, and no part of one, and knows no shape of it', () => {
    const [writer, reader] = rings();
    expect(append(writer, 'x'.repeat(50))).toBe(true);
    writer.word('y'.repeat(10));
    expect(writer.commit()).toBe(false);
    expect(Buffer.from(reader.take()).toString()).toBe('x'.repeat(50));
    writer.word('y'.repeat(10));
    expect(writer.commit()).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe('y'.repeat(10));
  });

  it('has room for what was taken while a line was written', () => {
    const [writer, reader] = rings();
    expect(append(writer, 'x'.repeat(50))).toBe(true);
    writer.text('y'.repeat(40));
    expect(Buffer.from(reader.take()).toString()).toBe('x'.repeat(50));
    expect(writer.commit()).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe('y'.repeat(40));
  });

  it('needs room for the slots only of a line whose shape has been before', () => {
    const [writer, reader] = rings();
    const line = (value: number): boolean => {
      writer.word('a word of thirty characters at '); // and with it a line is longer than half of the ring
      writer.number(value);
      return writer.commit();
    };
    expect(line(1)).toBe(true);
    expect([2, 3, 4, 5].map(line)).toEqual([true, true, true, true]);
    const lines = [1, 2, 3, 4, 5].map((value) => `a word of thirty characters at ${value}`).join('');
    expect(Buffer.from(reader.take()).toString()).toBe(lines);
  });

  it('takes the lines of a successor, who knows no shapes of its predecessor', () => {
    const memory = new Uint8Array(64 + 1024);
    const reader = new RecordingRing(memory);
    const write = (writer: RecordingRing, ...words: readonly string[]): void => {
      for (const word of words) {
        writer.word(word);
        writer.number(7);
        writer.commit();
      }
    };
    write(new RecordingRing(memory), 'a', 'b', 'a');
    write(new RecordingRing(memory), 'b', 'c', 'b');
    expect(Buffer.from(reader.take()).toString()).toBe('a7b7a7b7c7b7');
  });

  it('takes lines of more shapes than it keeps', () => {
    const [writer, reader] = rings(2 ** 12);
    for (let n = 0; n < 10_000; n += 1) {
      writer.word(`shape ${n % 5000}`);
      writer.number(n);
      expect(writer.commit()).toBe(true);
      if (n % 100 === 99) {
        const expected = Array.from({ length: 100 }, (_, i) => `shape ${(n - 99 + i) % 5000}${n - 99 + i}`);
        expect(Buffer.from(reader.take()).toString()).toBe(expected.join(''));
      }
    }
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
