import { PATIENCE } from '../../src/vmm/deadline.ts';

/** How long a test may take here that may take so many milliseconds on an idle machine (vitest.config.ts). What deadline.ts waits for is so already. */
export function patient(ms: number): number {
  return ms * PATIENCE;
}
