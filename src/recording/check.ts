/*
 * What a line must be, field by field: a recording may come from another host, and from anybody. A check returns nothing, and throws
 * what is wrong with a value. Fields that are not known are passed over.
 */

export type Check = (value: unknown, path: string) => void;

/** What is wrong with a field. */
export class Wrong extends Error {
  constructor(path: string, value: unknown, expected: string) {
    super(`${path === '' ? 'it' : path} is ${shown(value)}, not ${expected}`);
  }
}

function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

/** A whole number from 0 on that is exact. */
export const count: Check = (value, path) => {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Wrong(path, value, 'a whole number from 0 on');
};

export const flag: Check = (value, path) => {
  if (typeof value !== 'boolean') throw new Wrong(path, value, 'true or false');
};

/** No text of a recording is longer, in UTF-16 units. */
const LONGEST = 4096;

export const text: Check = (value, path) => {
  if (typeof value !== 'string' || value.length > LONGEST) throw new Wrong(path, value, `text of up to ${LONGEST}`);
};

export function matching(pattern: RegExp, what: string): Check {
  return (value, path) => {
    if (typeof value !== 'string' || !pattern.test(value)) throw new Wrong(path, value, what);
  };
}

export function oneOf(...values: readonly unknown[]): Check {
  const expected = values.map(shown).join(' or ');
  return (value, path) => {
    if (!values.includes(value)) throw new Wrong(path, value, expected);
  };
}

export function either(first: Check, second: Check): Check {
  return (value, path) => {
    try {
      first(value, path);
    } catch {
      second(value, path);
    }
  };
}

export function optional(check: Check): Check {
  return (value, path) => {
    if (value !== undefined) check(value, path);
  };
}

export function list(of: Check, most: number): Check {
  return (value, path) => {
    if (!Array.isArray(value) || value.length > most) throw new Wrong(path, value, `a list of up to ${most}`);
    for (const [n, each] of value.entries()) of(each, `${path}[${n}]`);
  };
}

export type Fields = Readonly<Record<string, Check>>;

/** The fields of an object; a missing one is `undefined` to its check. */
export function object(fields: Fields): Check {
  return (value, path) => {
    const found = objectAt(value, path);
    for (const [name, check] of Object.entries(fields)) check(own(found, name), below(path, name));
  };
}

/** The values of an object whose fields have any names. */
export function record(of: Check, most: number): Check {
  return (value, path) => {
    const entries = Object.entries(objectAt(value, path));
    if (entries.length > most) throw new Wrong(path, value, `an object of up to ${most} fields`);
    for (const [name, each] of entries) of(each, below(path, name));
  };
}

/** An object whose field `name` says which fields it has besides. */
export function choice(name: string, cases: ReadonlyMap<unknown, Check>): Check {
  return (value, path) => {
    const which = own(objectAt(value, path), name);
    const check = cases.get(which);
    const expected = (): string => [...cases.keys()].map(shown).join(' or ');
    if (check === undefined) throw new Wrong(below(path, name), which, expected());
    check(value, path);
  };
}

/** The path of a field of what has this path. */
export function below(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function objectAt(value: unknown, path: string): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Wrong(path, value, 'an object');
  return value;
}

function own(value: object, name: string): unknown {
  return Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}
