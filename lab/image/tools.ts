import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { Unavailable } from '../unavailable.ts';

/** The host's programs that something takes, and Debian's packages of them. */
export type Tools = Readonly<Record<string, string>>;

/** What makes an image. */
const TOOLS: Tools = {
  'apt-get': 'apt',
  'dpkg-deb': 'dpkg',
  bash: 'bash',
  gcc: 'gcc',
  make: 'make',
  mke2fs: 'e2fsprogs',
  strip: 'binutils',
  tar: 'tar',
  xz: 'xz-utils',
};

/** What compiles for aarch64 besides. */
export const ARM64_TOOLS: Tools = {
  'aarch64-linux-gnu-gcc': 'gcc-aarch64-linux-gnu',
  'aarch64-linux-gnu-strip': 'binutils-aarch64-linux-gnu',
};

/** Where administrators' programs are, mke2fs among them, which an ordinary user's PATH need not name. */
const MORE = ['/usr/sbin', '/sbin'];

/** Throws one line that names all that is missing. */
export function requireTools(more: Tools = {}): void {
  const path = (process.env['PATH'] ?? '').split(':');
  const directories = [...path, ...MORE];
  process.env['PATH'] = [...new Set(directories)].join(':');
  const missing = Object.entries({ ...TOOLS, ...more }).filter(
    ([tool]) => !directories.some((directory) => isProgram(directory, tool)),
  );
  if (missing.length === 0) return;
  const [tools, packages] = [missing.map(([tool]) => tool), missing.map(([, name]) => name)];
  throw new Unavailable(`this machine lacks ${tools.join(', ')}: apt-get install ${packages.join(' ')}`);
}

function isProgram(directory: string, name: string): boolean {
  try {
    accessSync(join(directory, name), constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
