import { formatSize, parseSize } from './size.ts';

/** One option of a simulated driver, which becomes one field of the SPEC. */
export interface Option<T> {
  /** For help texts. */
  readonly meaning: string;
  /** What the field is if the option is not given. */
  readonly initial: T;
  /** The field's value, of one text for each time that the option is given. Throws what `wrong` makes. */
  parse(texts: readonly string[], wrong: Wrong): T;
  /** The texts that give this value. */
  format(value: T): readonly string[];
}

/** The error for an option, or for one text that it was given. */
export type Wrong = (why: string, text?: string) => Error;

/** Options by their names in a SPEC. */
export type Options = Readonly<Record<string, Option<unknown>>>;

/** What a SPEC says with these options. */
export type ValuesOf<O extends Options> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never };

/** Says what is wrong with a number, if anything is. */
export type Check = (value: number) => string | undefined;

/** A whole number, with a unit or without: K, M, G, T. */
export function count(meaning: string, initial: number, check: Check): Option<number> {
  return {
    meaning,
    initial,
    parse: (texts, wrong) => {
      const text = onlyOf(texts, wrong);
      const value = parseSize(text, (why) => wrong(why, text));
      const why = check(value);
      if (why !== undefined) throw wrong(why, text);
      return value;
    },
    format: (value) => [formatSize(value)],
  };
}

/** 1 or 0. */
export function flag(meaning: string, initial = false): Option<boolean> {
  const number = count(meaning, 0, (value) => (value > 1 ? 'is neither 0 nor 1' : undefined));
  return {
    meaning,
    initial,
    parse: (texts, wrong) => number.parse(texts, wrong) === 1,
    format: (value) => [value ? '1' : '0'],
  };
}

/** One of several words, the first if none is given. */
export function choice<const W extends string>(meaning: string, words: readonly [W, ...W[]]): Option<W> {
  return {
    meaning: `${meaning}: ${words.join(' or ')}`,
    initial: words[0],
    parse: (texts, wrong) => {
      const text = onlyOf(texts, wrong);
      const word = words.find((candidate) => candidate === text);
      if (word === undefined) throw wrong(`is not ${words.join(' or ')}`, text);
      return word;
    },
    format: (value) => [value],
  };
}

export const any: Check = () => undefined;

export const fits32Bits: Check = (value) => (value < 2 ** 32 ? undefined : 'does not fit 32 bits');

export function within(from: number, to: number): Check {
  const why = `is not within ${formatSize(from)} and ${formatSize(to)}`;
  return (value) => (value < from || value > to ? why : undefined);
}

function onlyOf(texts: readonly string[], wrong: Wrong): string {
  if (texts.length > 1) throw wrong('is given twice');
  return texts[0] ?? '';
}
