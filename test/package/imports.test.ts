import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** Which rooms each room of src/ may import, from the bottom up. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  abi: [],
  v1: ['abi'],
  v2: ['abi'],
  sys: ['abi'],
  bridge: ['abi', 'v1', 'v2'],
  sim: ['abi', 'v1', 'v2'],
  'state-file': ['abi', 'v1', 'v2'],
  kernel: ['abi', 'v1', 'v2', 'sys', 'bridge', 'sim'],
  'vfio-user': ['abi', 'v1', 'v2', 'sys', 'bridge', 'sim'],
  interpose: ['abi', 'v1', 'v2', 'sys', 'bridge', 'sim', 'kernel'],
  demo: ['abi', 'v1', 'v2', 'sys', 'bridge', 'sim', 'kernel', 'vfio-user', 'interpose'],
  cli: ['abi', 'v1', 'v2', 'sys', 'bridge', 'sim', 'state-file', 'kernel', 'vfio-user', 'interpose', 'demo'],
};
const names = Object.keys(rooms);
const root = fileURLToPath(new URL('../..', import.meta.url));

interface Diagnostic {
  readonly code: string;
  readonly filename: string;
}

describe('the lint rule about imports', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-imports-'));
  let refused = new Set<string>();

  /** A file in a room that imports one module. */
  function plant(room: string, label: string, specifier: string): void {
    mkdirSync(join(directory, 'src', room), { recursive: true });
    writeFileSync(join(directory, 'src', room, `${label}.ts`), `export * from '${specifier}';\n`);
  }

  beforeAll(() => {
    cpSync(join(root, '.oxlintrc.json'), join(directory, '.oxlintrc.json'));
    for (const room of names) {
      for (const other of names) if (other !== room) plant(room, `to-${other}`, `../${other}/x.ts`);
      plant(room, 'to-itself', './x.ts');
      plant(room, 'to-error', '../error.ts');
      plant(room, 'to-koffi', 'koffi');
    }
    plant('demo/within', 'to-cli', '../../cli/x.ts');
    plant('demo/within', 'to-abi', '../../abi/x.ts');
    plant('.', 'to-v1', './v1/x.ts');
    plant('.', 'to-abi', './abi/x.ts');
    const { stdout, stderr } = spawnSync(join(root, 'node_modules/.bin/oxlint'), ['--format=json'], {
      cwd: directory,
      encoding: 'utf8',
    });
    if (!stdout.startsWith('{')) throw new Error(`oxlint: ${stdout}${stderr}`);
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: readonly Diagnostic[] };
    refused = new Set(
      diagnostics
        .filter(({ code }) => code === 'eslint(no-restricted-imports)')
        .map(({ filename }) => filename.replace(/^src\//, '').replace(/\.ts$/, '')),
    );
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it.each(names)('lets %s import what is below it, and nothing else', (room) => {
    const allowed = names.filter((other) => other !== room && !refused.has(`${room}/to-${other}`));
    expect(allowed.toSorted()).toEqual(rooms[room]?.toSorted());
    expect(refused).not.toContain(`${room}/to-itself`);
  });

  it('knows every folder of src', () => {
    const folders = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(names).toEqual(expect.arrayContaining(folders.map(({ name }) => name)));
  });

  it('sees imports from folders within a room', () => {
    expect(refused).toContain('demo/within/to-cli');
    expect(refused).not.toContain('demo/within/to-abi');
  });

  it('keeps koffi in sys', () => {
    expect(names.filter((room) => !refused.has(`${room}/to-koffi`))).toEqual(['sys']);
  });

  it('lets all but abi import error.ts, which imports abi only', () => {
    expect(names.filter((room) => refused.has(`${room}/to-error`))).toEqual(['abi']);
    expect(refused).toContain('to-v1');
    expect(refused).not.toContain('to-abi');
  });
});
