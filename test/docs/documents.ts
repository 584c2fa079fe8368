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

/** A fenced block: ```` ```LANGUAGE MARK ````. */
export interface Block {
  readonly language: string;
  /** `hardware`: runs only where there is some; `install`: as root, beside the packages; `fragment`: does not run by itself. */
  readonly mark: string;
  readonly code: string;
}

/** All blocks of a document in order, those within lists too. */
export function blocks(text: string): Block[] {
  return Array.from(
    text.matchAll(/^( *)```(\S*) *(.*)\n([^]*?)^\1```$/gm),
    ([, indent = '', language = '', mark = '', code = '']) => ({
      language,
      mark,
      code: code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    }),
  );
}

/** The contents of the code blocks in a language. */
export function codeBlocks(text: string, language: string): string[] {
  return blocks(text)
    .filter((block) => block.language === language)
    .map(({ code }) => code);
}
