import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachePath, makeEntry } from '../../scripts/lib/cache.mjs';
import { requireTools, type Tools } from './tools.ts';

const RECIPE = dirname(fileURLToPath(import.meta.url));
const UNUSED_MS = 14 * 24 * 3600 * 1000;

/** Files in the cache, and the versions that they were made of. */
export interface Entry<V> {
  readonly directory: string;
  readonly versions: V;
}

/** How one is made: what tells it from others, and what makes its files in `complete`. */
export interface Recipe<V> {
  readonly title: string;
  readonly programs: readonly string[];
  /** Programs of this machine that it takes besides those of every image, and Debian's packages of them. */
  readonly tools?: Tools;
  readonly fill: (complete: string, scratch: string) => Promise<V>;
}

interface Manifest<V> {
  readonly versions: V;
  readonly sizes: Readonly<Record<string, number>>;
}

/**
 * An entry of the cache, made first if it is not there. Its key is the recipe, which is everything in this directory, and what is
 * taken from the host; so a change of either makes another. The packages' versions are those of the day it was made.
 */
export async function prepareEntry<V>(recipe: Recipe<V>): Promise<Entry<V>> {
  const directory = cachePath(join('lab', keyOf(recipe)));
  if (readManifest(directory) === undefined) {
    requireTools(recipe.tools);
    removeUnused(dirname(directory));
    await makeEntry(directory, {
      isComplete: () => readManifest(directory) !== undefined,
      fill: async (complete, scratch) => writeManifest(complete, await recipe.fill(complete, scratch)),
    });
  }
  const manifest = readManifest<V>(directory);
  if (manifest === undefined) throw new Error(`${directory} is not complete`);
  const now = new Date();
  utimesSync(join(directory, 'manifest.json'), now, now);
  return { directory, versions: manifest.versions };
}

function keyOf({ title, programs }: Recipe<unknown>): string {
  const hash = createHash('sha256').update(`${title}\n`);
  for (const name of readdirSync(RECIPE).toSorted()) hash.update(name).update(readFileSync(join(RECIPE, name)));
  for (const program of programs) {
    const { size, mtimeMs } = statSync(program);
    hash.update(`${program} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

function writeManifest(directory: string, versions: unknown): void {
  const sizes = Object.fromEntries(readdirSync(directory).map((name) => [name, statSync(join(directory, name)).size]));
  const manifest: Manifest<unknown> = { versions, sizes };
  writeFileSync(join(directory, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** The manifest, if the files are there as it describes them. */
function readManifest<V>(directory: string): Manifest<V> | undefined {
  const file = join(directory, 'manifest.json');
  if (!existsSync(file)) return undefined;
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest<V>;
  const good = Object.entries(manifest.sizes).every(
    ([name, size]) => statSync(join(directory, name), { throwIfNoEntry: false })?.size === size,
  );
  return good ? manifest : undefined;
}

/** Entries of old recipes. */
function removeUnused(directory: string): void {
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    const used = statSync(join(directory, name, 'manifest.json'), { throwIfNoEntry: false })?.mtimeMs;
    if (used !== undefined && Date.now() - used > UNUSED_MS && /^[0-9a-f]{16}$/.test(name)) {
      rmSync(join(directory, name), { recursive: true, force: true });
    }
  }
}
