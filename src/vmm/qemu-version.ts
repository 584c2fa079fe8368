import { spawnSync } from 'node:child_process';
import { ShimError } from '../error.ts';

const ASKING_MS = 10_000;

/** The version of a QEMU by its own word, e.g. `7.2.22`. Throws why there is none. */
export function qemuVersion(path: string): string {
  const { status, signal, stdout, error } = spawnSync(path, ['--version'], { encoding: 'utf8', timeout: ASKING_MS });
  const version = status === 0 ? /version (\d+\.\d+\S*)/.exec(stdout)?.[1] : undefined;
  if (version !== undefined) return version;
  const why = error?.message ?? (status === 0 ? 'prints no version' : `ended with ${signal ?? `exit code ${status}`}`);
  throw new ShimError('ERR_TARGET', `${path} --version: ${why}`, { cause: error });
}
