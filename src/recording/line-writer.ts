/**
 * One of few texts: a field's name, or what many lines have in common. It is made once and written often: whoever writes lines may
 * remember with it how it wrote it before.
 */
export class Word {
  readonly text: string;
  /** Who has given it a number, and which. */
  numberedBy: object | undefined;
  number = 0;

  constructor(text: string) {
    this.text = text;
  }
}

/** Stands in a text for a number, which comes behind the text. JSON has no such character: it would be escaped. */
export const GAP = '\0';

/** What a line is written to, part after part. A VMM waits meanwhile: whoever takes the parts may leave it to another process to make text of them. */
export interface LineWriter {
  word(word: Word): void;
  /** A whole number from 0 to 2^53-1. */
  number(value: number): void;
  /** Any other text. */
  text(text: string): void;
}

/** The parts as text, with a gap for each number: what lines have in common that differ in nothing else. */
export class TextWithGaps implements LineWriter {
  written = '';

  word({ text }: Word): void {
    this.written += text;
  }

  number(): void {
    this.written += GAP;
  }

  text(text: string): void {
    this.written += text;
  }
}

/** The parts as text. */
export class LineText implements LineWriter {
  written = '';

  word({ text }: Word): void {
    this.written += text;
  }

  number(value: number): void {
    this.written += String(value);
  }

  text(text: string): void {
    this.written += text;
  }
}
