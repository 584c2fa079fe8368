import type { Piece } from './pieces.ts';

/** What a line is written to, part after part. A VMM waits meanwhile: whoever takes the parts may leave it to another process to make text of them. */
export interface LineWriter {
  piece(piece: Piece): void;
  /** A whole number from 0 to 2^53-1. */
  number(value: number): void;
  /** Any other text. */
  text(text: string): void;
}

/** The parts as text. */
export class LineText implements LineWriter {
  written = '';

  piece({ text }: Piece): void {
    this.written += text;
  }

  number(value: number): void {
    this.written += String(value);
  }

  text(text: string): void {
    this.written += text;
  }
}
