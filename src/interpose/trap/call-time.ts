/*
 * When the call that is served now began, in milliseconds of a monotonic clock. A look at the clock costs as much as a hundred
 * lines: what is remembered from call to call for a moment is measured by this.
 */
let now = performance.now();

/** The next call begins. */
export function callBegins(): number {
  now = performance.now();
  return now;
}

export function callTime(): number {
  return now;
}
