import { ShimError } from '../error.ts';

/** Says in one line what went wrong and sets the exit status: 2 for a wrong command line, 1 for all else. */
export function fail(error: unknown): void {
  const verbose = process.env['DEBUG']?.includes('vfio-shim') === true;
  if (error instanceof Error) {
    const detail = error instanceof ShimError ? ` [${[error.code, error.errno].filter(Boolean).join(', ')}]` : '';
    process.stderr.write(`vfio-shim: ${error.message}${detail}\n`);
    if (verbose && error.stack !== undefined) process.stderr.write(`${error.stack}\n`);
  } else process.stderr.write(`vfio-shim: ${String(error)}\n`);
  process.exitCode = statusOf(error);
}

/** Exit status of a failure: 127 and 126 for a command that is not there or not executable, as of env(1) and nohup(1). */
function statusOf(error: unknown): number {
  if (!(error instanceof ShimError)) return 1;
  if (error.code === 'ERR_COMMAND') return error.errno === 'ENOENT' ? 127 : 126;
  if (error.syscall === 'execve') return 126;
  return error.code === 'ERR_SPEC' || error.code === 'ERR_ARGUMENT' ? 2 : 1;
}
