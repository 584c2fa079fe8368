// Makes dist/ of src/: the library, module by module, and the command, a file for each of its programs. The new dist/ is built
// beside the old one and takes its place only when it is complete, so that whoever runs the old one meanwhile finds all of its files.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const begun = new Date();
const out = `.cache/build-${process.pid}`;
const old = `.cache/old-${process.pid}`;

/** The rooms that a room reaches by imports, itself included. */
function reachedFrom(room, rooms = JSON.parse(readFileSync('rooms.json', 'utf8'))) {
  return new Set([room, ...rooms[room].flatMap((imported) => [...reachedFrom(imported, rooms)])]);
}

/** tsc has compiled all of src/, whose types it has checked; who imports the package gets the rooms of the library. */
function keepLibrary(directory) {
  const library = reachedFrom('index.ts');
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory() && !library.has(entry.name)) rmSync(join(directory, entry.name), { recursive: true });
  }
}

/** tsc rewrites the extensions of relative imports in .js files, but not in .d.ts files. */
function rewriteDeclarations(directory) {
  for (const name of readdirSync(directory, { recursive: true })) {
    if (!name.endsWith('.d.ts')) continue;
    const file = join(directory, name);
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replaceAll(/(\b(?:from|import)\s*\(?\s*['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2'));
  }
}

/**
 * The command's programs, each in one file with all that it needs, as every module that Node loads costs a start about a
 * millisecond. They are CommonJS, as `package.json` beside them says: Node's loader of ES modules costs a start twenty more. What
 * `import()` names is in the same file, and runs when it is reached. Left out are koffi, which is native, and what neither `run`
 * nor its keeper and supervisor load. A process has one of these programs, and so one of each class.
 */
function bundleCommand(directory) {
  const { metafile } = buildSync({
    entryPoints: {
      main: 'src/cli/main.ts',
      'run-main': 'src/cli/run-main.ts',
      'commands-main': 'src/cli/commands-main.ts',
      'transfer-worker': 'src/cli/transfer-worker.ts',
      'attempts-main': 'src/doctor/attempts-main.ts',
      'keeper-main': 'src/interpose/process/keeper-main.ts',
      'supervisor-main': 'src/interpose/process/supervisor-main.ts',
      'vmm/main': 'src/demo/vmm/main.ts',
    },
    outdir: directory,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    external: ['koffi', 'cli-progress', 'debug'],
    define: { 'import.meta.dirname': '__dirname', 'import.meta.filename': '__filename' },
    metafile: true,
    logLevel: 'warning',
  });
  writeFileSync(join(directory, 'package.json'), '{ "type": "commonjs" }\n');
  writeFileSync(join(directory, 'LICENSES'), licensesOf(Object.keys(metafile.inputs)));
  chmodSync(join(directory, 'main.js'), 0o755);
}

/** The licences of the packages from which a bundle has files, as they ask for. */
function licensesOf(inputs) {
  const names = new Set(inputs.flatMap((input) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1] ?? []));
  return Array.from(names, (name) => {
    const directory = join('node_modules', name);
    const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`${name}: no licence beside what is bundled`);
    const { version } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
    return `${name} ${version}\n\n${readFileSync(join(directory, file), 'utf8')}`;
  }).join('\n\n');
}

mkdirSync('.cache', { recursive: true });
try {
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', out], { stdio: 'inherit' });
  keepLibrary(out);
  rewriteDeclarations(out);
  bundleCommand(join(out, 'cli'));
  writeFileSync(join(out, '.built'), '');
  utimesSync(join(out, '.built'), begun, begun); // what is edited from now on is newer
  if (existsSync('dist')) renameSync('dist', old);
  renameSync(out, 'dist');
} catch (error) {
  if (typeof error.status !== 'number') throw error;
  process.exitCode = error.status; // tsc has said why
} finally {
  rmSync(out, { recursive: true, force: true });
  rmSync(old, { recursive: true, force: true });
}
