import { expect, it } from 'vitest';
import { documents } from './documents.ts';

it('README.md has a table of contents, with all its parts in order', () => {
  const text = documents.find(({ path }) => path === 'README.md')?.text ?? '';
  const [top = '', ...parts] = text.split(/^## /m).map((part) => part.split('\n'));
  const listed = Array.from(
    [top]
      .flat()
      .join(' ')
      .matchAll(/\[([^\]]+)\]\(#[^)]*\)/g),
    ([, title]) => title,
  );
  expect(listed).toEqual(parts.map(([title]) => title));
});
