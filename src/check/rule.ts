import { ShimError } from '../error.ts';

/** What a driver or a VMM must do, and where that is written. */
export interface RuleText {
  /** Stable: programs and lists of deviations name it. */
  readonly id: string;
  /** A sentence that says who must do what. */
  readonly sentence: string;
  /** Header, struct or function, with its version. */
  readonly source: string;
}

/** A rule that is tried on a device. It begins with the device in RUNNING, and may leave it anywhere. */
export interface Rule<Subject> extends RuleText {
  /** Why the rule says nothing of this device, if it does not. */
  readonly exempts?: (subject: Subject) => string | undefined;
  /** Throws `Broken` if the device does not keep the rule, `NotTried` if that could not be seen. Whatever else is thrown breaks it too. */
  readonly try: (subject: Subject) => void;
}

/** A rule is broken; the message says by what. */
export class Broken extends Error {}

/** It cannot be said whether a rule is kept. */
export class NotTried extends Error {
  /** The device has failed on the way to what the rule is about; another rule is about that. */
  readonly isFailure: boolean;

  constructor(message: string, isFailure = false) {
    super(message);
    this.isFailure = isFailure;
  }
}

/** Brings a device to where a rule begins: what fails there breaks another rule, or none. */
export function prepare<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof NotTried) throw error;
    throw new NotTried(`the device does not come so far: ${reasonOf(error)}`, true);
  }
}

export function mustBe(isKept: boolean, why: string): void {
  if (!isKept) throw new Broken(why);
}

/** What is wrong, with its errno. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const errno = error instanceof ShimError && error.errno !== undefined ? ` (${error.errno})` : '';
  return `${error.message}${errno}`;
}
