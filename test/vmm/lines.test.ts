import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { readLines } from '../../src/vmm/lines.ts';

it.each([
  { pieces: ['one\ntwo\n'], lines: ['one', 'two'] },
  { pieces: ['o', 'n', 'e\nt', 'wo\n'], lines: ['one', 'two'] },
  { pieces: ['one\r\n', '\r\n\n', 'two\n'], lines: ['one', 'two'] },
  { pieces: ['  one\u2028two\n'], lines: ['  one\u2028two'] },
  { pieces: ['one\ntw', 'o'], lines: ['one', 'two'] },
])('readLines hands on $lines of $pieces, the last one when told', async ({ pieces, lines }) => {
  const stream = new PassThrough();
  const seen: string[] = [];
  const rest = readLines(stream, (line) => seen.push(line));
  for (const piece of pieces) stream.write(piece);
  stream.end();
  await new Promise((resolve) => stream.once('end', resolve));
  if (pieces.at(-1)?.endsWith('\n') !== true) expect(seen).toEqual(lines.slice(0, -1));
  rest();
  expect(seen).toEqual(lines);
});

it('readLines puts a character together that came in two pieces', async () => {
  const stream = new PassThrough();
  const seen: string[] = [];
  readLines(stream, (line) => seen.push(line));
  const [first = 0, ...others] = Buffer.from('µ\n');
  stream.write(Uint8Array.of(first));
  stream.end(Uint8Array.from(others));
  await new Promise((resolve) => stream.once('end', resolve));
  expect(seen).toEqual(['µ']);
});
