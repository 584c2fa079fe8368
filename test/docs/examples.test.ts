import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { codeBlocks, documents, root } from './documents.ts';

/** Programs in the documents: they import the package. A comment behind console.log() says what it prints. */
const examples = documents.flatMap(({ path, text }) =>
  codeBlocks(text, 'ts')
    .filter((code) => code.includes("from 'vfio-shim"))
    .map((code, n) => ({ path, code, name: `${path.replaceAll(/\W/g, '-')}-${n}` })),
);

describe('programs in the documents', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-examples-'));
  let complaints = '';

  beforeAll(() => {
    mkdirSync(join(directory, 'node_modules'));
    symlinkSync(root, join(directory, 'node_modules/vfio-shim'));
    symlinkSync(join(root, 'node_modules/@types'), join(directory, 'node_modules/@types'));
    writeFileSync(join(directory, 'package.json'), '{ "type": "module" }');
    const compilerOptions = { target: 'es2023', module: 'nodenext', strict: true, types: ['node'] };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    for (const { name, code } of examples) writeFileSync(join(directory, `${name}.ts`), code);
    complaints = spawnSync(join(root, 'node_modules/.bin/tsc'), [], { cwd: directory, encoding: 'utf8' }).stdout;
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('are there, and their types check', () => {
    expect(examples.map(({ path }) => path)).toContain('README.md');
    expect(complaints).toBe('');
  });

  it.each(examples)('$path prints what its comments say', ({ name, code }) => {
    const expected = Array.from(code.matchAll(/^console\.log\(.*\); \/\/ (.*)$/gm), ([, said]) => `${said}\n`);
    const { stdout, stderr } = spawnSync(process.execPath, [`${name}.js`], { cwd: directory, encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(stdout).toBe(expected.join(''));
  });
});
