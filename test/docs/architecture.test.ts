import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { documents, root } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/architecture.md')?.text ?? '';
const section = /^## One call, start to end$([^]*?)^## /m.exec(text)?.[1] ?? '';
const steps = Array.from(section.matchAll(/^(\d+)\. ([^]*?)(?=\n\d+\. |\n\n)/gm), ([, n = '', step = '']) => [n, step]);

describe('one call, start to end', () => {
  it('has steps', () => expect(steps.length).toBeGreaterThan(10));

  it.each(steps)('names in step %s what is in the files that it names', (_, step = '') => {
    const files = Array.from(step.matchAll(/\]\(\.\.\/(src\/[^)]+)\)/g), ([, path = '']) => path);
    const code = files.map((path) => readFileSync(join(root, path), 'utf8')).join('\n');
    const names = Array.from(step.matchAll(/`([#\w.]+)`/g), ([, name = '']) => name.split('.')).flat();
    expect(files).not.toEqual([]);
    expect(names).not.toEqual([]);
    expect(names.filter((name) => !code.includes(name))).toEqual([]);
  });
});
