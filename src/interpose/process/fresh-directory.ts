import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { errnoNameOrEio, ShimError } from '../../error.ts';

/** A directory of our own among the temporary files. Throws `ERR_FILE`; `otherwise` says what can be done about it. */
export function freshDirectory(prefix: string, otherwise = ''): string {
  const place = tmpdir();
  try {
    return mkdtempSync(join(place, prefix));
  } catch (error) {
    const { errno: number = 0, syscall, message } = error as NodeJS.ErrnoException;
    const why = getSystemErrorMap().get(number)?.[1] ?? message;
    throw new ShimError(
      'ERR_FILE',
      `cannot make a directory in ${place}, which is TMPDIR or /tmp: ${why}${otherwise}`,
      {
        errno: errnoNameOrEio(-number),
        cause: error,
        ...(syscall !== undefined && { syscall }),
      },
    );
  }
}
