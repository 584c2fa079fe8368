/** Pages of I/O virtual memory, by their numbers: from `first` to before `end`. Every number of a page is exact in a double. */
export interface PageRange {
  readonly first: number;
  readonly end: number;
}

/**
 * A set of pages is a list of ranges that are in order, and neither empty, overlapping nor touching. What is made here of such lists, or
 * of any ranges, is such a list.
 */
export type PageSet = readonly PageRange[];

export function union(...sets: readonly (readonly PageRange[])[]): PageSet {
  return joined(sets.flat(), 0);
}

/** The pages of `set` that lie in a range. */
export function within(set: PageSet, { first, end }: PageRange): PageSet {
  const pages = set.slice(firstEndingAfter(set, first));
  const behind = pages.findIndex((range) => range.first >= end);
  return (behind < 0 ? pages : pages.slice(0, behind)).flatMap((range) =>
    pageRange(Math.max(range.first, first), Math.min(range.end, end)),
  );
}

/** The pages of `set` that `others` does not have. */
export function without(set: PageSet, others: PageSet): PageSet {
  if (others.length === 0) return set;
  return set.flatMap((range) => {
    const left: PageRange[] = [];
    let { first } = range;
    for (const taken of within(others, range)) {
      left.push(...pageRange(first, taken.first));
      first = taken.end;
    }
    return [...left, ...pageRange(first, range.end)];
  });
}

/** The pages of a set, and those beside them that belong to the same `unit` pages: each range begins and ends at a multiple of it. */
export function roundedOut(set: PageSet, unit: number): PageSet {
  return union(
    set.map(({ first, end }) => ({ first: Math.floor(first / unit) * unit, end: Math.ceil(end / unit) * unit })),
  );
}

/** The pages of a set, and those of its smallest gaps, so that no more than `limit` ranges are left. */
export function coalesced(set: PageSet, limit: number): PageSet {
  if (set.length <= limit) return set;
  const gaps = set.slice(1).map((range, n) => range.first - (set[n]?.end ?? 0));
  const widest = gaps.sort((a, b) => a - b)[set.length - limit - 1] ?? 0;
  return joined(set, widest);
}

/** Joins ranges with a gap of at most that many pages between them. */
function joined(ranges: readonly PageRange[], gap: number): PageSet {
  const set: PageRange[] = [];
  for (const { first, end } of [...ranges].sort((a, b) => a.first - b.first)) {
    if (first >= end) continue;
    const last = set.at(-1);
    if (last === undefined || first > last.end + gap) set.push({ first, end });
    else if (end > last.end) set[set.length - 1] = { first: last.first, end };
  }
  return set;
}

function pageRange(first: number, end: number): PageSet {
  return first < end ? [{ first, end }] : [];
}

/** The place of the first range that does not end before a page. */
function firstEndingAfter(set: PageSet, page: number): number {
  let low = 0;
  let high = set.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((set[middle]?.end ?? 0) <= page) low = middle + 1;
    else high = middle;
  }
  return low;
}
