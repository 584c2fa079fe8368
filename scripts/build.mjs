// Makes dist/ of src/: the library, module by module, and the command, a file for each of its programs. The new dist/ is built
// beside the old one and takes its place only when it is complete, so that whoever runs the old one meanwhile finds all of its files.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { utimesSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleCommand } from './lib/bundle.mjs';

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

/** tsc rewrites the extensions of relative imports in .js files, but not in .d.ts files. No column moves. */
const rewriteImports = (text) => text.replaceAll(/(\b(?:from|import)\s*\(?\s*['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2');

/** A declaration map names its source as it lies from where it was built: this names it as it will lie from dist/. */
function rewriteSources(text, directory, name) {
  const map = JSON.parse(text);
  const sources = map.sources.map((source) =>
    relative(join('dist', dirname(name)), join(directory, dirname(name), source)),
  );
  return JSON.stringify({ ...map, sources });
}

function rewriteDeclarations(directory) {
  for (const name of readdirSync(directory, { recursive: true })) {
    if (!/\.d\.ts(\.map)?$/.test(name)) continue;
    const file = join(directory, name);
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, name.endsWith('.map') ? rewriteSources(text, directory, name) : rewriteImports(text));
  }
}

mkdirSync('.cache', { recursive: true });
try {
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', out], { stdio: 'inherit' });
  keepLibrary(out);
  rewriteDeclarations(out);
  bundleCommand(join(out, 'cli'), { koffi: 'package' });
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
