import { writeSync } from 'node:fs';

/** A line on stderr, which keeper and supervisor share with the target. */
export function warn(message: string): void {
  writeSync(2, `vfio-shim: ${message}\n`);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
