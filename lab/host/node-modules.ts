import { createHash } from 'node:crypto';
import { cpSync, existsSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachePath, makeEntry } from '../../scripts/lib/cache.mjs';
import { Failure, run } from '../../scripts/lib/process.mjs';
import { Unavailable } from '../unavailable.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const FILES = ['package.json', 'package-lock.json'] as const;

/** What npm installs of package-lock.json on a machine of aarch64, in the cache: the directory `node_modules`. */
export async function arm64NodeModules(say: (text: string) => void): Promise<string> {
  const hash = createHash('sha256');
  for (const name of FILES) hash.update(readFileSync(join(PROJECT, name)));
  const home = cachePath(join('npm', `node_modules-arm64-${hash.digest('hex').slice(0, 16)}`));
  const modules = join(home, 'node_modules');
  const isComplete = (): boolean => existsSync(modules);
  if (!isComplete())
    await makeEntry(home, { isComplete, fill: (complete, scratch) => install(complete, scratch, say) });
  return modules;
}

async function install(complete: string, scratch: string, say: (text: string) => void): Promise<void> {
  say('installing the packages of npm for aarch64: about 260 MB');
  for (const name of FILES) cpSync(join(PROJECT, name), join(scratch, name));
  const options = ['--cpu=arm64', '--os=linux', '--libc=glibc', '--ignore-scripts', '--no-audit', '--no-fund'];
  try {
    await run('npm', ['ci', ...options], { cwd: scratch });
  } catch (error) {
    if (error instanceof Failure) throw new Unavailable(error.message, { cause: error });
    throw error;
  }
  renameSync(join(scratch, 'node_modules'), join(complete, 'node_modules'));
}
