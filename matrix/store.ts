import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Cell, Outcome } from './cell.ts';
import type { Versions } from './report.ts';

const FILE = fileURLToPath(new URL('../.cache/matrix.json', import.meta.url));
const BUILD = fileURLToPath(new URL('../dist', import.meta.url));

/** What came out of cells, for a run that goes on where another ended. It counts for the same QEMUs and the same build only. */
export class Store {
  readonly #outcomes: Record<string, Outcome> = {};
  readonly #of: string;

  constructor(versions: Versions, resume: boolean) {
    this.#of = JSON.stringify([...versions, statSync(BUILD, { throwIfNoEntry: false })?.mtimeMs]);
    if (resume) Object.assign(this.#outcomes, this.#read());
  }

  #read(): Record<string, Outcome> {
    try {
      const { of, outcomes } = JSON.parse(readFileSync(FILE, 'utf8')) as {
        of: string;
        outcomes: Record<string, Outcome>;
      };
      return of === this.#of ? outcomes : {};
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
      throw error;
    }
  }

  get(cell: Cell): Outcome | undefined {
    return this.#outcomes[JSON.stringify(cell)];
  }

  set(cell: Cell, outcome: Outcome): void {
    this.#outcomes[JSON.stringify(cell)] = outcome;
    mkdirSync(dirname(FILE), { recursive: true });
    writeFileSync(FILE, JSON.stringify({ of: this.#of, outcomes: this.#outcomes }));
  }
}
