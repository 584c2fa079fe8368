/*
 * When the call that is served now began, in milliseconds of a monotonic clock. Reading the clock costs as much as a hundred lines of
 * code: what is remembered for a moment, from call to call, goes by this time instead.
 */

/** The global is found anew each time that it is read, which costs more than the clock does. */
export const clock = performance;

let now = clock.now();

/** The next call begins. */
export function callBegins(): number {
  now = clock.now();
  return now;
}

export function callTime(): number {
  return now;
}
