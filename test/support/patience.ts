/** So many times as long as on an idle machine is waited for anything (vitest.config.ts); src/vmm/deadline.ts does so by itself. */
const PATIENCE = Number(process.env['VFIO_SHIM_PATIENCE'] ?? 1);

/** How long a test may take here that may take so many milliseconds on an idle machine. */
export function patient(ms: number): number {
  return ms * PATIENCE;
}
