import { ShimError } from '../error.ts';
import { dieOf, statusOfSignal } from './die.ts';
import { isLostOutput, print, say } from './output.ts';
import { UsageError } from './usage.ts';

/**
 * Says in one line what went wrong, with `json` on stdout as well, and sets the exit status: 2 for a wrong command line, 1 for
 * all else. If nobody reads on, it says nothing, and the process ends as SIGPIPE ends one.
 */
export function fail(error: unknown, json = false): void {
  if (isLostOutput(error) && error.errno === 'EPIPE') {
    process.exitCode = statusOfSignal('SIGPIPE');
    process.once('exit', () => dieOf('SIGPIPE')); // last, when all is in order
    return;
  }
  tell(error);
  process.exitCode = statusOf(error);
  if (!json || isLostOutput(error)) return;
  try {
    print(`${JSON.stringify(asJson(error))}\n`);
  } catch {
    // it has been said on stderr, and the status is that of the failure
  }
}

/** For who writes to stdout in the middle of something: the process ends at once, and undoes what it does at its end. */
export function printOrEnd(text: string): void {
  try {
    print(text);
  } catch (error) {
    fail(error);
    process.exit();
  }
}

/** Says in one line what went wrong. */
export function tell(error: unknown): void {
  const detail = error instanceof ShimError ? ` [${[error.code, error.errno].filter(Boolean).join(', ')}]` : '';
  say(`vfio-shim: ${messageOf(error)}${detail}\n`);
  const verbose = process.env['DEBUG']?.includes('vfio-shim') === true;
  if (verbose && error instanceof Error && error.stack !== undefined) say(`${error.stack}\n`);
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll('\n', String.raw`\n`);
}

/** The line of `--json` if a command fails. What has no code is a fault of vfio-shim's own. */
function asJson(error: unknown): { error: { code: string | null; errno: string | null; message: string } } {
  const message = messageOf(error);
  if (error instanceof UsageError) return { error: { code: 'ERR_ARGUMENT', errno: null, message } };
  if (!(error instanceof ShimError)) return { error: { code: null, errno: null, message } };
  return { error: { code: error.code, errno: error.errno ?? null, message } };
}

/** Exit status of a failure: 127 and 126 for a command that is not there or not executable, as of env(1) and nohup(1). */
function statusOf(error: unknown): number {
  if (error instanceof UsageError) return 2;
  if (!(error instanceof ShimError)) return 1;
  if (error.code === 'ERR_COMMAND') return error.errno === 'ENOENT' ? 127 : 126;
  if (error.syscall === 'execve') return 126;
  return error.code === 'ERR_SPEC' || error.code === 'ERR_ARGUMENT' ? 2 : 1;
}
