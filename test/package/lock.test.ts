import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** What is looked at of an entry of package-lock.json (lockfileVersion 3). */
interface Entry {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const file = fileURLToPath(new URL('../../package-lock.json', import.meta.url));
const { packages } = JSON.parse(readFileSync(file, 'utf8')) as { packages: Readonly<Record<string, Entry>> };

/** Whether a package finds another one as Node looks for it: below itself, then further and further out. */
function isLocked(from: string, name: string): boolean {
  const nested = from.split('/node_modules/').map((_, n, parts) => [...parts.slice(0, n + 1), name]);
  return [...nested.map((parts) => parts.join('/node_modules/')), `node_modules/${name}`].some((at) => at in packages);
}

it('package-lock.json has the packages of every platform, without which npm ci refuses it', () => {
  const lacking = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies }]) =>
    Object.keys({ ...dependencies, ...optionalDependencies })
      .filter((name) => !isLocked(path, name))
      .map((name) => `${path || 'package.json'} needs ${name}`),
  );
  expect(lacking).toEqual([]);
});
