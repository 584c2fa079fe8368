import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { codeBlocks, documents, root } from './documents.ts';

/** Programs in the documents: they import the package. A comment behind console.log() says what it prints. */
const shown = documents.flatMap(({ path, text }) =>
  codeBlocks(text, 'ts')
    .filter((code) => code.includes("from 'vfio-shim"))
    .map((code, n) => ({ path, code, name: `${path.replaceAll(/\W/g, '-')}-${n}` })),
);

/** The programs of examples/, as files: each is a test of its own below. */
const files = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'));

const said = (code: string): string =>
  Array.from(code.matchAll(/^ *console\.log\(.*\); \/\/ (.*)$/gm), ([, line]) => `${line}\n`).join('');

describe('programs in the documents, and those in examples/', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-examples-'));
  let complaints = '';

  beforeAll(() => {
    mkdirSync(join(directory, 'node_modules'));
    symlinkSync(root, join(directory, 'node_modules/vfio-shim'));
    symlinkSync(join(root, 'node_modules/@types'), join(directory, 'node_modules/@types'));
    writeFileSync(join(directory, 'package.json'), '{ "type": "module" }');
    const compilerOptions = { target: 'es2023', module: 'nodenext', strict: true, types: ['node'] };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    for (const { name, code } of shown) writeFileSync(join(directory, `${name}.ts`), code);
    for (const file of files) copyFileSync(join(root, 'examples', file), join(directory, file));
    complaints = spawnSync(join(root, 'node_modules/.bin/tsc'), [], { cwd: directory, encoding: 'utf8' }).stdout;
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  /** Runs a program, and returns what it prints. */
  function run(name: string, ...args: readonly string[]): string {
    const { stdout, stderr } = spawnSync(process.execPath, [`${name}.js`, ...args], {
      cwd: directory,
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    return stdout;
  }

  it('are there, and their types check', () => {
    expect(shown.map(({ path }) => path)).toContain('README.md');
    expect(complaints).toBe('');
  });

  it.each(shown)('$path prints what its comments say', ({ name, code }) => {
    expect(run(name)).toBe(said(code));
  });

  it('examples/own-device.ts prints what its comments say', () => {
    const expected = said(readFileSync(join(root, 'examples/own-device.ts'), 'utf8'));
    expect(expected).toMatch(/^100000 bytes/);
    expect(run('own-device')).toBe(expected);
  });

  it('examples/recording.ts says what a migration of QEMU 7.2 cost', () => {
    const recorded = ['source', 'destination'].map((end) => {
      const packed = readFileSync(join(root, `test/vectors/qemu-7.2-mlx5-4m-${end}.jsonl.gz`));
      writeFileSync(join(directory, end), gunzipSync(packed));
      return end;
    });
    expect(run('recording', ...recorded)).toBe(
      [
        'source vm, 0000:90:00.0: 5243048 bytes out, 0 bytes in',
        'source vm, groups and containers: 0 bytes out, 0 bytes in',
        'destination vm, 0000:90:00.0: 0 bytes out, 5243048 bytes in',
        'destination vm, groups and containers: 0 bytes out, 0 bytes in',
        'downtime 653954 us',
        '  0000:90:00.0: 653954 us',
        '',
      ].join('\n'),
    );
  });

  it('examples/state-file.ts says what vfio-shim save has written', () => {
    const cli = join(root, 'dist/cli/main.js');
    const saved = spawnSync(process.execPath, [cli, 'save', 'sim:qat,size=64K,seed=7', join(directory, 'state')]);
    expect(saved.status).toBe(0);
    expect(run('state-file', 'state').split('\n')).toEqual([
      'of a device that speaks v2: 65568 bytes in 2 buffers',
      'bus pci',
      'id 8086:4941',
      'subsystem 8086:4941',
      'driver sim:qat',
      'memory 65536',
      'compat 1',
      'regions 0=65536 2=4096',
      'buffer of 32 bytes: 34544151010000000100000000000000',
      'buffer of 65536 bytes: 0000000039c727fc794edc9cf0fa7fb7',
      '',
    ]);
  });

  it('each file of examples/ is run above, and listed in README.md with its command', () => {
    expect(files.toSorted()).toEqual(['own-device.ts', 'recording.ts', 'state-file.ts']);
    const readme = documents.find(({ path }) => path === 'README.md')?.text ?? '';
    for (const file of files) {
      expect(readme).toContain(`[examples/${file}](examples/${file})`);
      expect(readFileSync(join(root, 'examples', file), 'utf8')).toContain(`npx tsx examples/${file}`);
    }
  });
});
