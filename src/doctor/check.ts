/** `ok`: tried, and it works. `warn`: something will be missing, or cannot be told. `fail`: `run` does not work with it. */
export type Level = 'ok' | 'warn' | 'fail';

/** One line of what `doctor` finds. */
export interface Check {
  /** Stable, for programs. */
  readonly name: string;
  readonly level: Level;
  readonly what: string;
  /** What can be done about it. */
  readonly remedy?: string;
}
