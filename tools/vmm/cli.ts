import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The compiled command, which `npm test` builds first; `VFIO_SHIM_CLI` names another. */
export const CLI: string =
  process.env['VFIO_SHIM_CLI'] ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Throws with what to do if the command is not built. */
export function requireCli(): void {
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: npm run build`);
}
