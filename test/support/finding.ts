import { byteDifference, type Bytes } from './byte-difference.ts';

/* What a model has to say of a device. Nothing here knows a test runner. */

const ACCESSES = 20;

/** What a model was at when it found something. */
export interface Circumstances {
  /** What the VMM did. */
  readonly step: string;
  /** What it believed before that. */
  readonly believed: string;
  /** Every access below the device under test so far. */
  readonly accesses: readonly string[];
}

/** Something that a device does and its model does not expect, with all that it takes to understand it. */
export class Finding extends Error {
  override readonly name = 'Finding';
  readonly problem: string;
  /** Not a field: runners print those of an error, and the message has it all. */
  readonly #circumstances: Circumstances | undefined;

  constructor(problem: string, circumstances?: Circumstances, cause?: unknown) {
    super([problem, ...(circumstances === undefined ? [] : told(circumstances))].join('\n'), { cause });
    this.problem = problem;
    this.#circumstances = circumstances;
  }

  get circumstances(): Circumstances | undefined {
    return this.#circumstances;
  }
}

function told({ step, believed, accesses }: Circumstances): string[] {
  const last = accesses.slice(-ACCESSES);
  const which = last.length < accesses.length ? `the last ${last.length} of ${accesses.length}` : `all ${last.length}`;
  return [
    `at ${step}`,
    `before it the VMM believed: ${believed}`,
    `accesses below the device, ${which}:`,
    ...last.map((line) => `  ${line}`),
  ];
}

type Value = string | number | boolean | undefined;

/** Each throws a Finding if what it says does not hold; `what` names what was looked at. */
export const check = {
  that(holds: boolean, problem: string): void {
    if (!holds) throw new Finding(problem);
  },

  same(what: string, received: Value, expected: Value): void {
    if (!Object.is(received, expected)) throw new Finding(`${what}: ${received}, not ${expected}`);
  },

  oneOf(what: string, received: Value, expected: readonly Value[]): void {
    if (!expected.includes(received)) throw new Finding(`${what}: ${received}, not ${expected.join(' or ')}`);
  },

  bytes(what: string, received: Bytes, expected: Bytes): void {
    const difference = byteDifference(received, expected);
    if (difference !== undefined) throw new Finding(`${what}: ${difference}`);
  },
};

/** One step of a model. Whatever is thrown in it becomes a Finding with its circumstances, if it is not yet one. */
export function inStep(step: string, believed: string, accesses: () => readonly string[], run: () => void): void {
  try {
    run();
  } catch (error) {
    if (error instanceof Finding && error.circumstances !== undefined) throw error;
    const problem = error instanceof Finding ? error.problem : `the VMM was thrown ${String(error)}`;
    throw new Finding(problem, { step, believed, accesses: accesses() }, error);
  }
}

interface Model<Step> {
  run(step: Step): void;
  /** What has to hold whatever has happened. */
  finish(): void;
}

/** Lets a model take steps and finish; what it found, if anything. */
export function findingOf<Step>(model: Model<Step>, steps: readonly Step[]): Finding | undefined {
  try {
    for (const step of steps) model.run(step);
    model.finish();
    return undefined;
  } catch (error) {
    if (error instanceof Finding) return error;
    throw error;
  }
}
