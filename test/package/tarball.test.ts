import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { isBuiltin, SourceMap, type SourceMapPayload } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { patient } from '../support/patience.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What is looked at of a package in package-lock.json. */
interface Locked {
  readonly dev?: boolean;
  readonly [field: string]: unknown;
}

interface Lock {
  readonly packages: Readonly<Record<string, Locked>>;
}

/** Runs a command to its end; throws with all it printed where it fails. */
function run(cwd: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): string {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', env: { ...process.env, ...env }, timeout: 60_000 });
  if (result.status === 0) return result.stdout;
  const how = result.error?.message ?? `exit status ${result.status}`;
  throw new Error(`${command} ${args.join(' ')}: ${how}\n${result.stdout}${result.stderr}`);
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** What this checkout's lock file says about the dependencies of the package, and about the types of Node. */
function lockedDependencies(): Lock['packages'] {
  const types = new Set(['node_modules/@types/node', 'node_modules/undici-types']);
  const { packages } = readJson(join(root, 'package-lock.json')) as Lock;
  const isFetched = (path: string, { link }: Locked): boolean => path.startsWith('node_modules/') && link !== true;
  return Object.fromEntries(
    Object.entries(packages)
      .filter(([path, entry]) => isFetched(path, entry) && (entry.dev !== true || types.has(path)))
      .map(([path, entry]) => [path, { ...entry, dev: false }]),
  );
}

/** What a declaration map says (ECMA-426), of which Node reads the mappings. */
interface DeclarationMap extends SourceMapPayload {
  readonly sources: string[];
}

/** The declarations that a file of declarations exports: each name, with its line and column, from 0 on. */
function exportedBy(declarations: string): { name: string; line: number; column: number }[] {
  return declarations.split('\n').flatMap((text, line) => {
    const found = /^export (?:declare )?(?:abstract )?(?:class|const|function|interface|type) (?<name>\w+)\b/d.exec(
      text,
    );
    const [column] = found?.indices?.groups?.['name'] ?? [];
    return column === undefined ? [] : [{ name: found?.groups?.['name'] ?? '', line, column }];
  });
}

describe('the packed package', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-package-'));
  const project = join(directory, 'project');
  const installed = join(project, 'node_modules/vfio-shim');

  /** Packs dist/ as it is and installs it with the versions that are locked here, which npm has in its cache. */
  beforeAll(() => {
    if (!existsSync(join(root, 'dist/.built'))) throw new Error('dist/ is missing: npm run build');
    const packed = run(root, 'npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', directory]);
    const [{ filename, version }] = JSON.parse(packed) as [{ filename: string; version: string }];
    mkdirSync(project);
    const dependencies = { 'vfio-shim': `file:../${filename}`, '@types/node': '*' };
    const own = readJson(join(root, 'package.json')) as { dependencies: unknown; bin: unknown };
    const shim = { version, resolved: `file:../${filename}`, dependencies: own.dependencies, bin: own.bin };
    const json = (name: string, value: unknown): void => writeFileSync(join(project, name), JSON.stringify(value));
    json('package.json', { name: 'project', version: '1.0.0', private: true, type: 'module', dependencies });
    json('package-lock.json', {
      name: 'project',
      version: '1.0.0',
      lockfileVersion: 3,
      requires: true,
      packages: {
        '': { name: 'project', version: '1.0.0', dependencies },
        'node_modules/vfio-shim': shim,
        ...lockedDependencies(),
      },
    });
    run(project, 'npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']);
  }, patient(120_000));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('holds what it needs and no more', () => {
    const files = readdirSync(installed, { recursive: true, encoding: 'utf8' });
    expect(files).toEqual(
      expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'docs/errors.md']),
    );
    // the documents show them
    const examples = readdirSync(join(root, 'examples')).map((name) => `examples/${name}`);
    expect(examples.length).toBeGreaterThan(3);
    expect(files).toEqual(expect.arrayContaining(examples));
    expect(files.filter((file) => /(^|\/)(test|bench|scripts|tools|node_modules)(\/|$)/.test(file))).toEqual([]);
    expect(files.filter((file) => /(?<!\.d)\.ts$/.test(file) && !/^(src|examples)\//.test(file))).toEqual([]);
  });

  it('has a command that prints what it is asked for', () => {
    const { 7: all } = JSON.parse(run(project, 'npx', ['--no', 'vfio-shim', 'fsm', '--json'])) as Record<
      string,
      Record<string, Record<string, string | null>>
    >;
    expect(all?.['RUNNING']?.['STOP']).toBe('RUNNING_P2P');
    expect(all?.['STOP_COPY']?.['PRE_COPY']).toBeNull();
  });

  it('has a command that runs a program with a device', () => {
    const shim = join(project, 'node_modules/.bin/vfio-shim');
    const report = run(project, shim, ['run', '--device', 'qat', '--json', '--', '/bin/true']);
    expect(JSON.parse(report)).toMatchObject({ name: '0000:90:00.0', device: 'qat', trappedCalls: 0 });
    expect(run(project, 'npx', ['--no', '--', 'vfio-shim', 'run', '--device', 'qat', '--', '/bin/true'])).toBe('');
  });

  describe('has programs of the command in one file each, which', () => {
    const programs = [
      'main',
      'run-main',
      'commands-main',
      'transfer-worker',
      'service-worker',
      'attempts-main',
      'keeper-main',
      'supervisor-main',
      'vmm-main',
    ];
    const textOf = (program: string): string => readFileSync(join(installed, 'dist/cli', `${program}.js`), 'utf8');

    it('are all there is', () => {
      const files = readdirSync(join(installed, 'dist/cli'), { recursive: true, encoding: 'utf8' });
      const others = ['LICENSES', 'package.json'];
      expect(files.toSorted()).toEqual([...others, ...programs.map((program) => `${program}.js`)].toSorted());
    });

    it.each(programs)('load nothing but what Node has, koffi, and few others (%s)', (program) => {
      const text = textOf(program);
      expect(text.match(/^.*(?:\bimport\(|^import\b).*$/gm)).toBeNull();
      const required = text.matchAll(/\brequire\d*\(["']([^"']+)["']\)/g);
      const others = new Set(Array.from(required, ([, name = '']) => name).filter((name) => !isBuiltin(name)));
      const isOfRun = !['main', 'commands-main', 'transfer-worker', 'service-worker'].includes(program);
      const allowed = program === 'main' ? [] : ['koffi', ...(isOfRun ? [] : ['cli-progress', 'debug'])];
      expect(allowed).toEqual(expect.arrayContaining([...others]));
    });

    it.each([
      [['fsm', '--json'], 0, ['main.js', 'commands-main.js'], []],
      [['run', '--', '/not/there'], 127, ['main.js', 'run-main.js'], ['@koromix', 'koffi']],
    ])('are loaded by %j', (args, exit, ours, packages) => {
      const list = join(directory, `loaded-${args[0]}`);
      const hook = join(directory, 'hook.cjs');
      writeFileSync(hook, loadedModules);
      const shim = join(installed, 'dist/cli/main.js');
      const env = { ...process.env, LOADED: list };
      const { status, stderr } = spawnSync(process.execPath, ['--require', hook, shim, ...args], {
        encoding: 'utf8',
        env,
      });
      expect(status, stderr).toBe(exit);
      const loaded = (readJson(list) as string[]).filter((file) => file !== hook);
      const within = (folder: string): string[] =>
        loaded.filter((file) => file.startsWith(`${folder}/`)).map((file) => file.slice(folder.length + 1));
      expect(within(join(installed, 'dist/cli'))).toEqual(ours);
      const others = within(join(project, 'node_modules')).filter((file) => !file.startsWith('vfio-shim/'));
      expect(new Set(others.map((file) => file.split('/')[0]))).toEqual(new Set(packages));
    });

    it('come with the licences of what is in them', () => {
      const licences = readFileSync(join(installed, 'dist/cli/LICENSES'), 'utf8');
      const paths = programs.flatMap((program) => [
        ...textOf(program).matchAll(/^ *\/\/ node_modules\/((?:@[^/]+\/)?[^/]+)\//gm),
      ]);
      const packages = new Set(paths.map(([, name = '']) => name));
      expect([...packages]).toEqual(['commander']);
      expect(licences).toContain(readFileSync(join(root, 'node_modules/commander/LICENSE'), 'utf8'));
    });
  });

  it('has a library that works and types that check', () => {
    writeFileSync(join(project, 'use.ts'), consumer);
    const compilerOptions = {
      target: 'es2023',
      module: 'nodenext',
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      types: ['node'],
    };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['use.ts'] }));
    run(project, join(root, 'node_modules/.bin/tsc'), []);
    expect(run(project, process.execPath, ['use.js'])).toBe('v1: PRE_COPY, v2: 5\nERR_SPEC EINVAL\n');
  });

  it('has declarations that name the files beside them', () => {
    const files = readdirSync(join(installed, 'dist'), { recursive: true, encoding: 'utf8' });
    const declarations = files.filter((file) => file.endsWith('.d.ts'));
    expect(declarations.length).toBeGreaterThan(20);
    const wrong = declarations.flatMap((file) => {
      const path = join(installed, 'dist', file);
      const imports = readFileSync(path, 'utf8').matchAll(/\b(?:from|import)\s*\(?\s*['"](\.[^'"]*)['"]/g);
      return Array.from(imports, ([, specifier = '']) => specifier)
        .filter((specifier) => !specifier.endsWith('.js') || !existsSync(join(path, '..', specifier)))
        .map((specifier) => `${file}: ${specifier}`);
    });
    expect(wrong).toEqual([]);
  });

  describe('has the sources of its declarations, which', () => {
    const sources = (): string[] => readdirSync(join(installed, 'src'), { recursive: true, encoding: 'utf8' });
    const declared = (): { path: string; map: DeclarationMap }[] =>
      readdirSync(join(installed, 'dist'), { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('.d.ts'))
        .map((file) => join(installed, 'dist', file))
        .map((path) => ({ path, map: readJson(`${path}.map`) as DeclarationMap }));

    it('are those that the maps name, and no others', () => {
      const named = declared().flatMap(({ path, map }) => map.sources.map((source) => join(path, '..', source)));
      const there = sources().filter((file) => file.endsWith('.ts'));
      expect(there.length).toBeGreaterThan(100);
      expect(named.map((file) => relative(join(installed, 'src'), file)).toSorted()).toEqual(there.toSorted());
      expect(there.map((file) => readFileSync(join(installed, 'src', file), 'utf8'))).toEqual(
        there.map((file) => readFileSync(join(root, 'src', file), 'utf8')),
      );
    });

    it('are where an editor goes from a declaration', () => {
      const landed = declared().flatMap(({ path, map }) => {
        const text = readFileSync(path, 'utf8');
        expect(text).toContain(`//# sourceMappingURL=${basename(path)}.map`);
        const positions = new SourceMap(map);
        return exportedBy(text).map(({ name, line, column }) => {
          const entry = positions.findEntry(line, column);
          if (!('originalSource' in entry)) return [name, path];
          const source = readFileSync(join(path, '..', entry.originalSource), 'utf8').split('\n');
          return [name, /^\w+/.exec(source[entry.originalLine]?.slice(entry.originalColumn) ?? '')?.[0]];
        });
      });
      expect(landed.length).toBeGreaterThan(500);
      expect(landed.filter(([name, at]) => name !== at)).toEqual([]);
    });
  });
});

/** Writes at the end of a process which files it has loaded. */
const loadedModules = `
process.on('exit', () => require('node:fs').writeFileSync(process.env.LOADED, JSON.stringify(Object.keys(require.cache))));
`;

/** A program that uses each entry point. */
const consumer = `
import { presentV1, presentV2, ShimError, type ErrorCode, type V1Device, type V2Device } from 'vfio-shim';
import { VFIO_DEVICE_FEATURE, vfio_device_migration_info } from 'vfio-shim/abi';
import { presentV1 as same, type PresentV1Options } from 'vfio-shim/bridge';
import { StreamReader, StreamWriter, type StreamEvent } from 'vfio-shim/qemu-stream';
import { createSim, parseSpec, type SimSpec } from 'vfio-shim/sim';
import { memorySource, StateReader, type StateHeader } from 'vfio-shim/state-file';
import { phaseOf, readTimeline, type Timeline } from 'vfio-shim/timeline';
import { V1, V1RegisterAccess, V1Save, v1StateName, type V1State } from 'vfio-shim/v1';
import { statePath, V2, V2Save, v2StateName, type V2State } from 'vfio-shim/v2';

const options: PresentV1Options = { onError: 'report', dataSection: new Uint8Array(65536) };
const spec: SimSpec = parseSpec('qat,size=8K,seed=1');
const sim = createSim(spec);
if (sim.protocol !== 'v2') throw new Error(sim.protocol);
const v2: V2Device = sim.device;
const v1: V1Device = presentV1(v2, options);
new V1Save(v1, (buffer: Uint8Array) => buffer.length).setup();
const state: V1State = new V1RegisterAccess(v1).deviceState();
const again: V2Device = presentV2(v1, { offerP2P: false });
const path: V2State[] = statePath(again.migrationFlags, V2.STOP, V2.PRE_COPY);
if (same !== presentV1 || state !== V1.PRE_COPY || path.map(v2StateName).join() !== 'RUNNING,PRE_COPY') throw new Error();
if (VFIO_DEVICE_FEATURE !== 0x3b75 || vfio_device_migration_info.size !== 32) throw new Error();
const reader = new StreamReader();
const events: StreamEvent[] = StreamWriter.record({ tag: 'END_OF_STATE' }).flatMap((chunk) => [...reader.push(chunk)]);
if (events.map(({ tag }) => tag).join() !== 'END_OF_STATE') throw new Error();
if (phaseOf('v1', 'STOP_COPY') !== phaseOf('v2', 'STOP_COPY')) throw new Error();
void ((): Timeline => readTimeline([]));
void ((): StateHeader => new StateReader(memorySource(new Uint8Array(0))).header);
// @ts-expect-error a v1 device is no v2 device
void ((): V2Save => new V2Save(v1, () => {}));
console.log(\`v1: \${v1StateName(state)}, v2: \${again.migrationFlags}\`);
try {
  parseSpec('nonsense');
} catch (error) {
  if (!(error instanceof ShimError)) throw error;
  const code: ErrorCode = error.code;
  console.log(code, error.errno);
}
`;
