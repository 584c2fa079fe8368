/** A rule that a driver is known to break. */
export interface Deviation {
  /** The rule's id. */
  readonly rule: string;
  readonly why: string;
  /** Where that can be seen: source file, function and version. */
  readonly source: string;
}
export const deviationLists: Readonly<Record<string, readonly Deviation[]>> = {};
