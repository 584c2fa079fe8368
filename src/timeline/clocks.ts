import type { Lane, Survey } from './survey.ts';

/** How the times of a recording are brought to the axis that all share. */
export interface Clock {
  /** What is added to them: microseconds. */
  readonly shift: number;
  /** By how much of it the recording was moved, as its data would have come in before they went out. */
  readonly moved: number;
  /** `same`: of one host as the first, so of one clock; `realtime`: by what the host took for the time of day. */
  readonly by: 'same' | 'realtime';
}

/** Two recordings of one boot of a host say the same of its clocks, but for what was set meanwhile, in microseconds. */
const SAME_BOOT = 1e6;

/**
 * The clocks of recordings, by their headers. Those of one host share a monotonic clock. Between hosts the time of day is what there is;
 * if by that a destination gets bytes before their source has given them, the destination is later by at least that much.
 */
export function clocksOf(surveys: readonly Survey[]): Clock[] {
  const clocks: Clock[] = [];
  for (const survey of surveys) {
    const base = baseOf(survey);
    const known = surveys.slice(0, clocks.length).findIndex((other) => isSameBoot(other, survey));
    const first = clocks[known];
    clocks.push(
      known < 0 || first === undefined ? { shift: base, moved: 0, by: 'realtime' } : { ...first, by: 'same' },
    );
  }
  return inOrder(surveys, clocks);
}

function baseOf({ header }: Survey): number {
  return header.realtime - header.monotonic;
}

function isSameBoot(one: Survey, other: Survey): boolean {
  return one.header.host === other.header.host && Math.abs(baseOf(one) - baseOf(other)) < SAME_BOOT;
}

/** Moves each destination until nothing comes in before it went out; each is looked at as often as there are recordings, for chains. */
function inOrder(surveys: readonly Survey[], clocks: readonly Clock[]): Clock[] {
  const found = [...clocks];
  for (const _ of surveys) {
    for (const [n, destination] of surveys.entries()) {
      const lag = Math.max(0, ...surveys.map((source, m) => lagOf(source, found[m], destination, found[n])));
      if (lag > 0) for (const k of sharing(n, surveys)) found[k] = movedBy(lag, found[k]);
    }
  }
  return found;
}

function movedBy(lag: number, clock: Clock | undefined): Clock {
  const { shift, moved, by } = clock ?? { shift: 0, moved: 0, by: 'realtime' };
  return { shift: shift + lag, moved: moved + lag, by };
}

/** The recordings of one host and boot: they are moved together. */
function sharing(n: number, surveys: readonly Survey[]): number[] {
  const one = surveys[n];
  return surveys.flatMap((other, k) => (k === n || (one !== undefined && isSameBoot(one, other)) ? [k] : []));
}

/** By how much bytes come in too early; at most 0 if they do not, or if nothing is known of it. */
function lagOf(source: Survey, from: Clock | undefined, destination: Survey, to: Clock | undefined): number {
  if (source === destination || isSameBoot(source, destination) || from === undefined || to === undefined) return 0;
  const lags = pairsOf(source, destination).map(([out, into]) => earlyBy(out, from.shift, into, to.shift));
  return Math.max(0, ...lags);
}

/** The lanes of two recordings between which a state has gone: of one name, or the only ones with as many bytes. */
export function pairsOf(source: Survey, destination: Survey): (readonly [out: Lane, into: Lane])[] {
  const outs = source.lanes.filter(({ out }) => out > 0);
  const intos = destination.lanes.filter((lane) => lane.in > 0);
  return outs.flatMap((out) => {
    const named = intos.find(({ device }) => device === out.device);
    const alike = intos.filter((into) => into.in === out.out);
    const found = named ?? (alike.length === 1 ? alike[0] : undefined);
    return found === undefined ? [] : [[out, found] as const];
  });
}

/**
 * The n-th byte comes in no sooner than it went out. Of a mark only the last access that moved data is known by its time, so the bytes
 * that had gone in by then are compared with those that a source's mark had brought out at its end: never too much, at times too little.
 */
function earlyBy(out: Lane, outShift: number, into: Lane, inShift: number): number {
  const sources = out.marks.filter((mark) => mark.out > 0);
  let early = 0;
  let given = 0;
  let taken = 0;
  let n = 0;
  for (const mark of into.marks) {
    if (mark.in === 0) continue;
    taken += mark.in;
    for (let next = sources[n]; next !== undefined && given + next.out <= taken; next = sources[n]) {
      given += next.out;
      n += 1;
    }
    const source = sources[n - 1];
    if (source !== undefined) early = Math.max(early, source.moved + outShift - (mark.moved + inShift));
  }
  return early;
}
