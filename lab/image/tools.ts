import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { Unavailable } from '../unavailable.ts';

/** The host's programs that make an image, and Debian's packages of them. */
const TOOLS = {
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

/** Where administrators' programs are, mke2fs among them, which an ordinary user's PATH need not name. */
const MORE = ['/usr/sbin', '/sbin'];

/** Throws one line that names all that is missing. */
export function requireTools(): void {
  const path = (process.env['PATH'] ?? '').split(':');
  const directories = [...path, ...MORE];
  process.env['PATH'] = [...new Set(directories)].join(':');
  const missing = Object.entries(TOOLS).filter(
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
