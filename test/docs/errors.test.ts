import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { ERROR_CODES } from '../../src/error.ts';

it('docs/errors.md documents each code once, in the order of ERROR_CODES', () => {
  const text = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
  expect(Array.from(text.matchAll(/^- `(ERR_\w+)`: \S/gm), ([, code]) => code)).toEqual([...ERROR_CODES]);
});
