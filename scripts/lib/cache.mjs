// The directory of what is fetched and made once.
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { Failure } from './process.mjs';

const STALE_MS = 24 * 3600 * 1000;

/**
 * The path of an entry, which may not exist.
 * @param {string} name
 */
export function cachePath(name) {
  const xdg = process.env.XDG_CACHE_HOME ?? '';
  // The XDG base directory specification has relative paths ignored.
  const base = process.env.VFIO_SHIM_CACHE || join(isAbsolute(xdg) ? xdg : join(homedir(), '.cache'), 'vfio-shim');
  const path = resolve(base, name);
  // ld.so separates directories with colons and semicolons; apt.conf has no escape for quotes.
  if (/[:;"\n]/.test(path)) throw new Failure(`${path}: a cache directory cannot have a colon, a semicolon or a quote`);
  return path;
}

/**
 * Makes an entry in a directory beside it and renames it when it is complete, so that several may do so at once.
 * @param {string} home the entry
 * @param {{ isComplete: () => boolean, fill: (complete: string, scratch: string) => Promise<void> }} how
 *   whether the entry is there and good; what fills the directory `complete`, with an empty directory of its own for the rest
 */
export async function makeEntry(home, { isComplete, fill }) {
  mkdirSync(dirname(home), { recursive: true });
  removeStale(home);
  const staging = mkdtempSync(`${home}.part-`);
  const remove = () => rmSync(staging, { recursive: true, force: true, maxRetries: 5 });
  const end = () => process.exit(1); // the exit handler removes
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  process.once('exit', remove);
  for (const signal of signals) process.once(signal, end);
  try {
    const complete = join(staging, 'complete');
    const scratch = join(staging, 'scratch');
    mkdirSync(complete);
    mkdirSync(scratch);
    await fill(complete, scratch);
    publish(complete, home, join(staging, 'broken'), isComplete);
  } finally {
    remove();
    process.off('exit', remove);
    for (const signal of signals) process.off(signal, end);
  }
}

function publish(complete, home, broken, isComplete) {
  for (;;) {
    try {
      renameSync(complete, home);
      return;
    } catch (error) {
      if (!['ENOTEMPTY', 'EEXIST'].includes(error.code)) throw error;
    }
    if (isComplete()) return; // another process was faster
    rmSync(broken, { recursive: true, force: true });
    try {
      renameSync(home, broken);
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
}

/** Removes what killed predecessors left. */
function removeStale(home) {
  const directory = dirname(home);
  for (const name of readdirSync(directory).filter((name) => name.startsWith(`${basename(home)}.part-`))) {
    const path = join(directory, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > STALE_MS) rmSync(path, { recursive: true, force: true });
  }
}
