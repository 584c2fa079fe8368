import { getSystemErrorMap } from 'node:util';
import { errnoNameOrEio, ShimError } from '../error.ts';

/** A failure of the file system, in one line: what could not be done, and the system's reason. */
export function fileError(doing: string, error: unknown): unknown {
  const { errno: number, syscall, code } = error as NodeJS.ErrnoException;
  if (error instanceof ShimError || typeof number !== 'number') return error;
  const errno = errnoNameOrEio(Math.abs(number));
  const reason = getSystemErrorMap().get(number)?.[1] ?? code ?? errno;
  return new ShimError('ERR_FILE', `${doing}: ${reason}`, { errno, cause: error, ...(syscall && { syscall }) });
}

/** What was thrown over a file, whose path begins its message if it is an error of files. */
export function inFile(path: string, error: unknown): unknown {
  const told = fileError(path, error);
  const { code, message, errno, syscall } = told as ShimError;
  if (!(told instanceof ShimError) || !code.startsWith('ERR_FILE') || message.startsWith(`${path}: `)) return told;
  return new ShimError(code, `${path}: ${message}`, {
    cause: told,
    ...(errno && { errno }),
    ...(syscall && { syscall }),
  });
}

/** Runs an operation on a file, whose path then begins the message of what it throws. */
export function onFile<T>(path: string, operation: () => T): T {
  try {
    return operation();
  } catch (error) {
    throw inFile(path, error);
  }
}
