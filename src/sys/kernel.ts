import { release } from 'node:os';

/** True if the running kernel is this version or a later one. */
export function kernelIsAtLeast(major: number, minor: number): boolean {
  const [running = 0, patch = 0] = release().split('.', 2).map(Number);
  return running > major || (running === major && patch >= minor);
}
