import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Outcome } from './run-case.ts';

const FILE = fileURLToPath(new URL('../../.cache/vmms.json', import.meta.url));

/** What was judged, by title, for a run that goes on where another ended. */
export class Store {
  readonly #outcomes = new Map<string, Outcome>();

  constructor(resume: boolean) {
    if (!resume) return;
    const known = JSON.parse(readFileSync(FILE, 'utf8')) as Record<string, Outcome>;
    for (const [title, outcome] of Object.entries(known)) this.#outcomes.set(title, outcome);
  }

  get(title: string): Outcome | undefined {
    return this.#outcomes.get(title);
  }

  set(title: string, outcome: Outcome): void {
    this.#outcomes.set(title, outcome);
    mkdirSync(dirname(FILE), { recursive: true });
    writeFileSync(FILE, JSON.stringify(Object.fromEntries(this.#outcomes)));
  }
}
