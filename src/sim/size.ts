const UNITS = ['', 'K', 'M', 'G', 'T'] as const;

/** A count with an optional unit: K, M, G, T (powers of 1024). `error` gets what is wrong with one that is none. */
export function parseSize(text: string, error: (why: string) => Error): number {
  const match = /^(\d+)([KMGT]?)$/i.exec(text);
  if (match === null) throw error('is not a whole number from 0 on, with K, M, G or T behind it or nothing');
  const scale = 1024 ** (UNITS as readonly string[]).indexOf((match[2] ?? '').toUpperCase());
  const value = Number(match[1]) * scale;
  if (!Number.isSafeInteger(value)) throw error('is too large');
  return value;
}

/** The shortest text from which `parseSize` makes this count. */
export function formatSize(value: number): string {
  const dividing = UNITS.filter((_, n) => value > 0 && value % 1024 ** n === 0);
  const unit = dividing.length - 1;
  return unit < 0 ? '0' : `${value / 1024 ** unit}${UNITS[unit]}`;
}
