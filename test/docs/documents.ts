import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Document {
  /** Path from the root of the checkout. */
  readonly path: string;
  readonly text: string;
}

/** Every document that people read: those in the root, and docs/. */
export const documents: readonly Document[] = [
  ...readdirSync(root),
  ...readdirSync(`${root}/docs`, { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`),
]
  .filter((path) => path.endsWith('.md'))
  .map((path) => ({ path, text: readFileSync(`${root}/${path}`, 'utf8') }));

/** The contents of the code blocks in a language. */
export function codeBlocks(text: string, language: string): string[] {
  return Array.from(text.matchAll(/^```(\w+)\n(.*?)^```$/gms))
    .filter(([, info]) => info === language)
    .map(([, , code = '']) => code);
}
