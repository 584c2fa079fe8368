import type { Readable } from 'node:stream';

/**
 * Calls `onLine` for every line that has come to its end and is not empty. A line may be long and come in many pieces. Returns
 * what hands on the rest, which no newline has ended.
 */
export function readLines(stream: Readable, onLine: (line: string) => void): () => void {
  let pieces: string[] = [];
  const flush = (): void => {
    const line = pieces.join('').trimEnd();
    pieces = [];
    if (line !== '') onLine(line);
  };
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    const [piece = '', ...more] = chunk.split('\n');
    pieces.push(piece);
    for (const next of more) {
      flush();
      pieces.push(next);
    }
  });
  return flush;
}
