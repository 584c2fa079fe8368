import { patient } from './patience.ts';

/** True for the long run: `VFIO_SHIM_FULL=1`. */
export const FULL = (process.env['VFIO_SHIM_FULL'] ?? '') !== '';

/** True in `npm run test:length` and in the long run. What takes longest is done in fewer combinations otherwise: `npm test` has minutes. */
export const AT_LENGTH = FULL || (process.env['VFIO_SHIM_AT_LENGTH'] ?? '') !== '';

/** All cases at length, otherwise those of which `isKept` is true. */
export function inShort<T>(cases: readonly T[], isKept: (each: T, n: number) => boolean): T[] {
  return AT_LENGTH ? [...cases] : cases.filter(isKept);
}

/** True while mutants are tried: tests are run a thousand times over then. */
const FEW = process.env['VFIO_SHIM_FEW'] === '1';

/** How often a property is tried: 200 times, in the long run at least 10,000 times. */
export function numRuns(normal = 200): number {
  if (FEW) return 20;
  return FULL ? Math.max(10_000, normal * 50) : normal;
}

/** Milliseconds that a property test may take. */
export const PROPERTY_TIMEOUT = patient(FULL ? 1_800_000 : 30_000);
