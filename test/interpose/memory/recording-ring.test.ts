import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RecordingRing, RING } from '../../../src/interpose/memory/recording-ring.ts';

/** A ring for 64 bytes of lines, and another process's view of the same memory. */
function rings(): [RecordingRing, RecordingRing] {
  const memory = new Uint8Array(64 + 64);
  return [new RecordingRing(memory), new RecordingRing(memory)];
}

describe('RecordingRing', () => {
  it('gives the lines that were put into it, in order, around its end too', () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.string({ unit: 'grapheme', maxLength: 9 })), { maxLength: 60 }), (steps) => {
        const [writer, reader] = rings();
        let expected = '';
        let got = '';
        for (const step of steps) {
          if (step === null) got += Buffer.from(reader.take()).toString();
          else if (writer.append(step)) expected += step;
        }
        expect(got + Buffer.from(reader.take()).toString()).toBe(expected);
        expect(reader.isEmpty).toBe(true);
      }),
    );
  });

  it('takes no line for which there is no room, and no part of one', () => {
    const [writer, reader] = rings();
    expect(writer.append('x'.repeat(60))).toBe(true);
    expect(writer.append('yyyyy')).toBe(false);
    expect(writer.append('zzzz')).toBe(true);
    expect(Buffer.from(reader.take()).toString()).toBe(`${'x'.repeat(60)}zzzz`);
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
