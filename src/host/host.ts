import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';

/**
 * The files of a host that say what it has: /sys, /proc, /dev and /lib/modules, below a root of a test's own if it gives one. What is not
 * there, or may not be read, is `undefined`, or an empty list: whoever must tell the two apart asks for the error.
 */
export class Host {
  readonly #root: string;

  constructor(root = '') {
    this.#root = root;
  }

  /** Where a path of the host is for this process. */
  at(path: string): string {
    return `${this.#root}${path}`;
  }

  text(path: string): string | undefined {
    return attempt(() => readFileSync(this.at(path), 'utf8'));
  }

  /** The names in a directory, in order. */
  names(path: string): string[] {
    return (attempt(() => readdirSync(this.at(path))) ?? []).sort(inOrder);
  }

  has(path: string): boolean {
    return this.names(dirname(path)).includes(basename(path));
  }

  /** What a symbolic link names. */
  target(path: string): string | undefined {
    return attempt(() => readlinkSync(this.at(path)));
  }

  /** What it ends in: of a device in sysfs, the name of its driver, of its group, or of the device itself. */
  linked(path: string): string | undefined {
    const target = this.target(path);
    return target === undefined ? undefined : basename(target);
  }
}

const collator = new Intl.Collator('en', { numeric: true });
const inOrder = (a: string, b: string): number => collator.compare(a, b);

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
