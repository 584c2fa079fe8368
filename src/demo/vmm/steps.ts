import { writeSync } from 'node:fs';

/** What the small VMM tells on its standard output, a line of JSON each. `at` is in seconds, on the clock of all processes. */
export type VmmStep = { readonly at: number } & (
  | { readonly step: 'opened'; readonly device: string; readonly dataSection: number; readonly guestMemory: number }
  | { readonly step: 'guest wrote'; readonly bytes: number; readonly during: 'running' | 'pre-copy' }
  | { readonly step: 'device_state'; readonly value: number }
  /** The guest stands still from here on, until the destination says `running`. */
  | { readonly step: 'stopped' }
  | { readonly step: 'running' }
  /** At the source what the guest has written in all, at the destination what it reads. */
  | { readonly step: 'guest memory'; readonly bytes: number; readonly sha256: string }
);

type Untimed<T> = T extends unknown ? Omit<T, 'at'> : never;

export function tell(step: Untimed<VmmStep>): void {
  writeSync(1, `${JSON.stringify({ at: Number(process.hrtime.bigint()) / 1e9, ...step })}\n`);
}
