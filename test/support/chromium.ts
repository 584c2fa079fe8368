import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian's names for a Chromium that needs no screen. */
const NAMES = ['chromium-headless-shell', 'chromium'];

/** The Chromium that `VFIO_SHIM_CHROMIUM` names, or the first in PATH; `undefined` if there is none. */
export function findChromium(): string | undefined {
  const named = process.env['VFIO_SHIM_CHROMIUM'] ?? '';
  if (named !== '') return named;
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
