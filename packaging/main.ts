import { statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Failure } from '../scripts/lib/process.mjs';
import { ARCHES, isArch, type Arch } from './architectures.ts';
import { makeDeb } from './deb.ts';
import { readProduct } from './product.ts';
import { makeTarball } from './tarball.ts';

/*
 * npm run package [-- --arch x64|arm64] [--out DIRECTORY] [--only TEXT]
 *
 * Makes the packages: of Debian, with its Node and with one that is bundled, and an archive for any Linux with glibc.
 */

const USAGE = `npm run package -- [--arch ${Object.keys(ARCHES).join('|')}] [--out DIRECTORY] [--only deb|standalone|tar]`;

const KINDS = {
  deb: (out: string, arch: Arch) => makeDeb(out, 'vfio-shim', arch, readProduct()),
  standalone: (out: string, arch: Arch) => makeDeb(out, 'vfio-shim-standalone', arch, readProduct()),
  tar: (out: string, arch: Arch) => makeTarball(out, arch, readProduct()),
} as const;

async function main(): Promise<void> {
  const options = { arch: { type: 'string' }, out: { type: 'string' }, only: { type: 'string' } } as const;
  const { values } = parseArgs({ options });
  const { arch = process.arch, out = '.cache/packages', only } = values;
  const kinds = Object.entries(KINDS).filter(([kind]) => only === undefined || kind === only);
  if (!isArch(arch) || kinds.length === 0) throw new Failure(`usage: ${USAGE}`);
  const directory = resolve(out);
  process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
  for (const [, make] of kinds) {
    const file = await make(directory, arch);
    console.log(`${file} ${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`);
  }
}

try {
  await main();
} catch (error) {
  const isUsage = error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  if (!(error instanceof Failure) && !isUsage) throw error;
  console.error(`package: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
