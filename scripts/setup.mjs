// Makes a fresh clone ready: installs what package-lock.json names and builds dist/ if either is missing or stale.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`vfio-shim is built with Node.js 20.19 or newer, this is ${process.version}`);
  process.exit(1);
}

/** Runs a step; what it prints goes to stderr, so that the output of what comes after stays clean. */
function run(title, command, args) {
  console.error(`setup: ${title}`);
  try {
    execFileSync(command, args, { stdio: ['ignore', 2, 2] });
  } catch (error) {
    console.error(`setup: ${title} failed: ${error.status === null ? error.message : `exit status ${error.status}`}`);
    process.exit(1);
  }
}

const lockHash = () => createHash('sha256').update(readFileSync('package-lock.json')).digest('hex');
const stamp = 'node_modules/.vfio-shim-setup';
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lockHash()) {
  run('npm ci', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  writeFileSync(stamp, lockHash());
}

/** The time of the last change below a directory; a file that was removed changed its directory. */
const newest = (directory) =>
  readdirSync(directory, { recursive: true })
    .map((name) => statSync(join(directory, name)).mtimeMs)
    .reduce((latest, time) => Math.max(latest, time), statSync(directory).mtimeMs);
const inputs = [
  'tsconfig.json',
  'tsconfig.build.json',
  'rooms.json',
  'package.json',
  'package-lock.json',
  'scripts/build.mjs',
  'scripts/lib/bundle.mjs',
].map((file) => statSync(file).mtimeMs);
if (!existsSync('dist/.built') || statSync('dist/.built').mtimeMs < Math.max(newest('src'), ...inputs)) {
  run('build', process.execPath, ['scripts/build.mjs']);
}
