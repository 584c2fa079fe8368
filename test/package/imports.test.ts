import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const rooms = JSON.parse(readFileSync(join(root, 'rooms.json'), 'utf8')) as Readonly<Record<string, readonly string[]>>;
const names = Object.keys(rooms);
const isFolder = (room: string): boolean => !['beside', 'index.ts'].includes(room);

/** The room in which a file lies, by its path in src/. */
function roomOf(path: string): string {
  if (!path.includes('/')) return path === 'index.ts' ? path : 'beside';
  return names.find((room) => path.startsWith(`${room}/`)) ?? path.slice(0, path.lastIndexOf('/'));
}

/** The modules that a file of src/ names, types and dynamic imports too, by their paths in src/. */
function importsOf(path: string): string[] {
  const text = readFileSync(join(root, 'src', path), 'utf8');
  const specifiers = text.matchAll(/(?:\bfrom |\bimport |\bimport\(|\bnew URL\()\s*'(\.[^']*\.ts)'/g);
  return Array.from(specifiers, ([, specifier = '']) => join(dirname(path), specifier));
}

describe('rooms.json', () => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  );

  it('knows every folder of src, and no other', () => {
    expect(names.toSorted()).toEqual([...new Set(files.map(roomOf))].toSorted());
  });

  it.each(names)('lets %s import what it does import, and no more', (room) => {
    const imported = files.filter((file) => roomOf(file) === room).flatMap(importsOf);
    const others = new Set(imported.map(roomOf).filter((other) => other !== room));
    expect([...others].toSorted()).toEqual(rooms[room]?.toSorted());
  });

  it('has no circles: a room imports rooms that stand above it', () => {
    for (const [n, room] of names.entries())
      expect(names.slice(0, n)).toEqual(expect.arrayContaining([...rooms[room]!]));
  });

  it('is what the lint rules and the picture of the rooms are made of', () => {
    const args = [join(root, 'scripts/rooms.mjs'), '--check'];
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });
});

interface Diagnostic {
  readonly code: string;
  readonly filename: string;
  readonly labels: readonly [{ readonly span: { readonly line: number } }];
}

describe('the lint rule about imports', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-imports-'));
  /** What was imported, by the file in src/ that does it; each import has a line of its own. */
  const planted = new Map<string, readonly string[]>();
  const refused = new Map<string, string[]>();

  function plant(path: string, specifiers: readonly string[]): void {
    mkdirSync(dirname(join(directory, 'src', path)), { recursive: true });
    const lines = specifiers.map((specifier) => `export * from '${specifier}';\n`);
    writeFileSync(join(directory, 'src', path), lines.join(''));
    planted.set(path, specifiers);
    refused.set(path, []);
  }

  /** How a file of src/ names a room. */
  function specifierOf(room: string, from: string): string {
    const path = room === 'beside' ? 'error.ts' : room === 'index.ts' ? room : `${room}/x.ts`;
    const found = relative(dirname(from), path);
    return found.startsWith('.') ? found : `./${found}`;
  }
  function fileOf(room: string): string {
    return room === 'beside' ? 'wait.ts' : room === 'index.ts' ? room : `${room}/y.ts`;
  }

  beforeAll(() => {
    cpSync(join(root, '.oxlintrc.json'), join(directory, '.oxlintrc.json'));
    for (const room of names) {
      const others = (from: string): string[] =>
        names.filter((name) => name !== room).map((name) => specifierOf(name, from));
      plant(fileOf(room), [...others(fileOf(room)), './itself.ts', 'koffi']);
      const within = `${room}/within/y.ts`;
      if (isFolder(room)) plant(within, [...others(within), './itself.ts', '../itself.ts', 'koffi']);
    }
    const { stdout, stderr } = spawnSync(join(root, 'node_modules/.bin/oxlint'), ['--format=json'], {
      cwd: directory,
      encoding: 'utf8',
    });
    if (!stdout.startsWith('{')) throw new Error(`oxlint: ${stdout}${stderr}`);
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: readonly Diagnostic[] };
    for (const { code, filename, labels } of diagnostics) {
      const path = filename.replace(/^src\//, '');
      const specifier = planted.get(path)?.[labels[0].span.line - 1];
      if (code === 'eslint(no-restricted-imports)' && specifier !== undefined) refused.get(path)?.push(specifier);
    }
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  /** What lint is to refuse in a file of a room. */
  function forbidden(room: string, from: string): string[] {
    const others = names.filter((name) => name !== room && rooms[room]?.includes(name) !== true);
    return [...others.map((name) => specifierOf(name, from)), ...(room === 'sys' ? [] : ['koffi'])];
  }

  it.each(names)('lets %s import what its row names, and nothing else; koffi, if it is sys', (room) => {
    expect(refused.get(fileOf(room))).toEqual(forbidden(room, fileOf(room)));
  });

  // a room that may not import what lies beside the rooms may not have folders either: the rule takes the one for the other
  it.each(names.filter((room) => rooms[room]?.includes('beside') === true && isFolder(room)))(
    'sees imports from folders within %s',
    (room) => {
      expect(refused.get(`${room}/within/y.ts`)).toEqual(forbidden(room, `${room}/within/y.ts`));
    },
  );
});
