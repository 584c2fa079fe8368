import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RecordingRing, RING } from '../../../src/interpose/memory/recording-ring.ts';
import { GAP, Word, type LineWriter } from '../../../src/recording/line-writer.ts';

/** A ring for so many bytes of lines, and another process's view of the same memory. */
function rings(bytes = 128): [RecordingRing, RecordingRing] {
  const memory = new Uint8Array(64 + bytes);
  return [new RecordingRing(memory), new RecordingRing(memory)];
}

/** All that is left. */
function takeAll(ring: RecordingRing): string {
  let text = '';
  do text += Buffer.from(ring.take()).toString();
  while (!ring.isEmpty);
  return text;
}

/** A word with two gaps. */
const gapped = new Word(`[${GAP},${GAP}]`);
const words = { '{"kind":': new Word('{"kind":'), '}': new Word('}'), é: new Word('é'), '': new Word('') };
const part = fc.oneof(
  fc.constantFrom('{"kind":', '}', 'é', '').map((word) => words[word]),
  fc.maxSafeNat(),
  fc.nat(2 ** 28).map((time) => 2 ** 40 + time),
  fc.constantFrom(
    0,
    9,
    10,
    999_999_999,
    10 ** 9,
    10 ** 9 + 1,
    2 ** 24 - 1,
    2 ** 24,
    2 ** 32,
    10 ** 12,
    Number.MAX_SAFE_INTEGER,
  ),
  fc.string({ unit: 'grapheme', maxLength: 9 }).filter((text) => !text.includes(GAP)),
  fc.tuple(fc.maxSafeNat(), fc.maxSafeNat()),
);
type Part = typeof part extends fc.Arbitrary<infer T> ? T : never;

function writeParts(to: LineWriter, parts: readonly Part[]): void {
  for (const each of parts) {
    if (typeof each === 'number') to.number(each);
    else if (typeof each === 'string') to.text(each);
    else if (each instanceof Word) to.word(each);
    else {
      to.word(gapped);
      for (const number of each) to.number(number);
    }
  }
}

function textOf(parts: readonly Part[]): string {
  return parts
    .map((each) => (Array.isArray(each) ? `[${each[0]},${each[1]}]` : each instanceof Word ? each.text : String(each)))
    .join('');
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
            got += takeAll(reader);
            continue;
          }
          writeParts(writer, step);
          if (writer.commit()) expected += textOf(step);
        }
        expect(got + takeAll(reader)).toBe(expected);
        expect(reader.isEmpty).toBe(true);
      }),
    );
  });

  it('takes a long text', () => {
    const text = 'long '.repeat(20_000);
    const [writer, reader] = rings(2 ** 20);
    expect(append(writer, text)).toBe(true);
    expect(takeAll(reader)).toBe(text);
  });

  it('takes no line for which there is no room, and no part of one, and numbers no word of it', () => {
    const [writer, reader] = rings();
    const word = new Word('y'.repeat(10));
    expect(append(writer, 'x'.repeat(50))).toBe(true);
    writer.word(word);
    expect(writer.commit()).toBe(false);
    expect(takeAll(reader)).toBe('x'.repeat(50));
    writer.word(word);
    expect(writer.commit()).toBe(true);
    expect(takeAll(reader)).toBe('y'.repeat(10));
  });

  it('takes no line of which a part had no room, though the others have', () => {
    const [writer, reader] = rings();
    writer.text('before');
    writer.text('x'.repeat(80));
    writer.text('after');
    expect(writer.commit()).toBe(false);
    expect(reader.isEmpty).toBe(true);
    expect(append(writer, 'x'.repeat(60))).toBe(true);
    expect(takeAll(reader)).toBe('x'.repeat(60));
  });

  it('has room for as many bytes as it has, but for the longest number', () => {
    const [writer, reader] = rings();
    for (let n = 0; n < 100; n += 1) {
      let lines = 0;
      for (; writer.number(7), writer.commit(); lines += 1) expect(lines).toBeLessThan(128);
      expect(lines).toBeGreaterThan(128 - 10);
      expect(takeAll(reader)).toBe('7'.repeat(lines));
    }
  });

  it('needs a byte or two for a time behind another one, whichever of them is the later', () => {
    const [writer, reader] = rings(2 ** 10);
    const times = Array.from({ length: 200 }, (_, n) => 81_234_567_890 + (n % 3 === 0 ? -n : 7 * n));
    for (const time of times) {
      writer.number(time);
      expect(writer.commit()).toBe(true);
    }
    expect(reader.used).toBeLessThan(2 * times.length + 10);
    expect(takeAll(reader)).toBe(times.join(''));
  });

  it('knows how far numbers are apart though a line between them is not to be', () => {
    const [writer, reader] = rings();
    const far = 2 ** 40;
    for (const number of [far, far + 1]) {
      writer.number(number);
      writer.commit();
      writer.number(2 * far);
      writer.discard();
    }
    expect(takeAll(reader)).toBe(`${far}${far + 1}`);
  });

  it('takes the numbers of a successor, who knows none of its predecessor', () => {
    const memory = new Uint8Array(64 + 1024);
    const reader = new RecordingRing(memory);
    const numbers = [2 ** 40, 2 ** 40 + 5, 9, 2 ** 40 - 5];
    for (const number of numbers) {
      const writer = new RecordingRing(memory);
      for (let n = 0; n < 2; n += 1) {
        writer.number(number + n);
        writer.commit();
      }
    }
    expect(takeAll(reader)).toBe(numbers.flatMap((number) => [number, number + 1]).join(''));
  });

  it('needs a byte only for a word that has been before', () => {
    const [writer, reader] = rings();
    const word = new Word('a word of thirty characters at '); // and with it a line is longer than half of the ring
    const line = (value: number): boolean => {
      writer.word(word);
      writer.number(value);
      return writer.commit();
    };
    expect([1, 2, 3].map(line)).toEqual([true, true, true]);
    expect(takeAll(reader)).toBe([1, 2, 3].map((value) => `${word.text}${value}`).join(''));
  });

  it('takes the lines of a successor, who knows no words of its predecessor', () => {
    const memory = new Uint8Array(64 + 1024);
    const reader = new RecordingRing(memory);
    const write = (writer: RecordingRing, ...of: readonly Word[]): void => {
      for (const word of of) {
        writer.word(word);
        writer.number(7);
        writer.commit();
      }
    };
    const [a, b, c] = [new Word('a'), new Word('b'), new Word('c')];
    write(new RecordingRing(memory), a, b, a);
    write(new RecordingRing(memory), new Word('b'), c, b);
    expect(takeAll(reader)).toBe('a7b7a7b7c7b7');
  });

  it('takes the lines of two writers of one process, each into a ring of its own, of the same words', () => {
    const pairs = [rings(1024), rings(1024)];
    const [a, b] = [new Word('a'), new Word('b')];
    const got = ['', ''];
    for (let n = 0; n < 60; n += 1) {
      for (const [which, [writer, reader]] of pairs.entries()) {
        for (const word of n % 3 === 0 ? [a] : [b, a]) writer.word(word);
        if (n % 4 === 0) writer.discard();
        expect(writer.commit()).toBe(true);
        got[which] += takeAll(reader);
      }
    }
    const lines = Array.from({ length: 60 }, (_, n) => (n % 4 === 0 ? '' : n % 3 === 0 ? 'a' : 'ba'));
    expect(got).toEqual([lines.join(''), lines.join('')]);
  });

  it('takes lines of more words than it keeps', () => {
    const [writer, reader] = rings(2 ** 14);
    const names = Array.from({ length: 5000 }, (_, n) => new Word(`word ${n} `));
    for (let n = 0; n < 10_000; n += 1) {
      writer.word(names[n % 5000] as Word);
      writer.number(n);
      expect(writer.commit()).toBe(true);
      if (n % 100 === 99) {
        const expected = Array.from({ length: 100 }, (_, i) => `word ${(n - 99 + i) % 5000} ${n - 99 + i}`);
        expect(takeAll(reader)).toBe(expected.join(''));
      }
    }
  });

  it('gives whole lines, some at a time', () => {
    const [writer, reader] = rings(2 ** 21);
    const line = `${'x'.repeat(999)}\n`;
    for (let n = 0; n < 800; n += 1) expect(append(writer, line)).toBe(true);
    const pieces: number[] = [];
    while (!reader.isEmpty) pieces.push(reader.take().length);
    expect(pieces).toEqual([263_000, 263_000, 263_000, 11_000]);
  });

  it('says of a word that it was never told', () => {
    const memory = new Uint8Array(64 + 1024);
    const [writer, word] = [new RecordingRing(memory), new Word('a')];
    const line = (): void => {
      writer.word(word);
      writer.commit();
    };
    line();
    new RecordingRing(memory).take();
    line();
    expect(() => new RecordingRing(memory).take()).toThrow('no word 0 has come before');
  });

  it('keeps nothing of a line that is not to be', () => {
    const [writer, reader] = rings();
    writer.text('no');
    writer.discard();
    expect(append(writer, 'yes')).toBe(true);
    expect(takeAll(reader)).toBe('yes');
  });

  it('wakes whoever sleeps, once', () => {
    const [writer, reader] = rings();
    expect(writer.wakes()).toBe(false);
    reader.sleep();
    expect([writer.wakes(), writer.wakes()]).toEqual([true, false]);
  });

  it('wakes whoever dozes once a quarter of it is lines, and again if they were taken meanwhile', () => {
    const [writer, reader] = rings(512);
    const lines = (count: number): boolean[] =>
      Array.from({ length: count }, () => {
        writer.number(1);
        writer.commit();
        return writer.wakes();
      });
    const wakesAt = (count: number): number => lines(count).indexOf(true);
    reader.doze();
    for (let n = 0; n < 5; n += 1) {
      const at = wakesAt(300);
      expect(at).toBeGreaterThanOrEqual(126);
      expect(at).toBeLessThan(256);
      expect(writer.wakes()).toBe(false);
      reader.take();
      reader.doze();
      expect(writer.wakes()).toBe(false);
    }
  });

  it('counts the lines of predecessors that were killed', () => {
    const memory = new Uint8Array(64 + 8 * 64);
    new RecordingRing(memory).doze();
    const woken = Array.from({ length: 10 }, () => {
      const writer = new RecordingRing(memory);
      append(writer, 'x'.repeat(15)); // 32 bytes, with how long it is, and that a writer begins
      return writer.wakes();
    });
    expect(woken).toEqual(woken.map((_, n) => n === 3));
  });

  it('goes on when it has counted to 2^32 bytes, and has no more room then than it has', () => {
    const memory = new Uint8Array(64 + 128);
    const [head, tail] = [0, 1];
    const words = new Int32Array(memory.buffer);
    words[head] = -200;
    words[tail] = -200;
    const [writer, reader] = [new RecordingRing(memory), new RecordingRing(memory)];
    for (let n = 0; n < 10; n += 1) {
      const line = 'x'.repeat(40); // of 82 bytes
      expect([append(writer, line), append(writer, line)]).toEqual([true, false]);
      expect(takeAll(reader)).toBe(line);
    }
    expect(words[head]).toBeGreaterThan(0);
  });

  it('is closed for the first reason that there is', () => {
    const [writer, reader] = rings();
    expect(writer.state).toBe(RING.open);
    reader.close(RING.full);
    writer.close(RING.lost);
    expect(writer.state).toBe(RING.full);
  });
});
