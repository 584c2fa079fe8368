// Compiles src/ into dist/. The new dist/ is built beside the old one and takes its place only when it is complete, so that
// whoever runs the old one meanwhile, a supervisor's successor too, finds all of its files.
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
 * The supervisor in one file, which a keeper holds in memory (src/interpose/process/supervisor-program.ts). koffi is handed to it.
 */
function bundleSupervisor(directory) {
  buildSync({
    entryPoints: ['src/interpose/process/supervisor-main.ts'],
    outfile: join(directory, 'interpose/process/supervisor-main.cjs'),
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    external: ['koffi'],
    logLevel: 'warning',
  });
  for (const rest of ['supervisor-main.js', 'supervisor-main.d.ts']) rmSync(join(directory, 'interpose/process', rest));
}

mkdirSync('.cache', { recursive: true });
try {
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', out], { stdio: 'inherit' });
  rewriteDeclarations(out);
  bundleSupervisor(out);
  chmodSync(join(out, 'cli/main.js'), 0o755);
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
