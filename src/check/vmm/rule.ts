import type { RuleText } from '../rule.ts';
import type { Asked } from './asked.ts';
import type { Seen } from './seen.ts';

/** What is wrong with what a VMM asked. */
export interface Offence {
  readonly why: string;
  /** The line where it happened, if it is not the one that was looked at. */
  readonly line?: number;
  /** It is none if the device runs next: then a migration was given up, and the VMM did not go on as if nothing had happened. */
  readonly unlessItRuns?: true;
}

/** Looks at what is asked of one device, or of the containers and groups, one after the other. */
export type Look = (asked: Asked, seen: Seen) => Offence | undefined;

/** A rule of what a VMM must do. `watch` begins to look at a device that has been opened. */
export interface VmmRule extends RuleText {
  readonly watch: () => Look;
}

/** A rule that remembers nothing of its own. */
export function simple(
  id: string,
  sentence: string,
  source: string,
  why: (asked: Asked, seen: Seen) => string | undefined,
): VmmRule {
  const look: Look = (asked, seen) => {
    const found = why(asked, seen);
    return found === undefined ? undefined : { why: found };
  };
  return { id, sentence, source, watch: () => look };
}

/** Looks for the last request of a kind that failed before the VMM took a save for complete. */
export function failedBeforeCompletion(
  failed: (asked: Asked) => boolean,
  completes: (asked: Asked, seen: Seen) => boolean,
): Look {
  let last: Asked | undefined;
  return (asked, seen) => {
    if (asked.errno !== undefined && failed(asked)) last = asked;
    if (last === undefined || !completes(asked, seen)) return undefined;
    const offence = completedThough(last);
    last = undefined;
    return offence;
  };
}

/** The VMM completed a save though this had failed. */
export function completedThough({ line, errno }: Asked): Offence {
  return { line, why: `it failed with ${errno}, and the VMM completed the save`, unlessItRuns: true };
}
