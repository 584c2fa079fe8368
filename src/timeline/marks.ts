/** Calls in a row: one access, or several that are close together. Times are microseconds. */
export interface Mark {
  readonly begin: number;
  readonly end: number;
  readonly calls: number;
  /** What the VMM has waited for them in all. */
  readonly busy: number;
  /** Migration data that left the device with them, and that came into it. */
  readonly out: number;
  readonly in: number;
  /** When the last access began that moved any; -1 if none did. */
  readonly moved: number;
  /** What the call was, if it is one. */
  readonly text: string;
}

/**
 * Marks in a bounded number, however many accesses there are: if they become too many, neighbours are joined that lie within a `reach`,
 * which then grows. So what is dense becomes coarse, and what stands alone, as in a VM that idles for days, costs nothing.
 */
export class Marks {
  readonly #limit: number;
  #marks: Mark[] = [];
  #reach = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get list(): readonly Mark[] {
    return this.#marks;
  }

  add(mark: Mark): void {
    addTo(this.#marks, mark, this.#reach);
    while (this.#marks.length > this.#limit) this.#coarsen();
  }

  #coarsen(): void {
    this.#reach = Math.max(1, this.#reach * 2);
    const coarser: Mark[] = [];
    for (const mark of this.#marks) addTo(coarser, mark, this.#reach);
    this.#marks = coarser;
  }
}

function addTo(marks: Mark[], mark: Mark, reach: number): void {
  const last = marks.at(-1);
  const one = last === undefined || reach === 0 ? undefined : joined(last, mark);
  if (one === undefined || one.end - one.begin > reach) marks.push(mark);
  else marks[marks.length - 1] = one;
}

function joined(first: Mark, second: Mark): Mark {
  return {
    begin: Math.min(first.begin, second.begin),
    end: Math.max(first.end, second.end),
    calls: first.calls + second.calls,
    busy: first.busy + second.busy,
    out: first.out + second.out,
    in: first.in + second.in,
    moved: Math.max(first.moved, second.moved),
    text: '',
  };
}
