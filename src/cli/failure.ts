import type { ErrnoName } from '../abi/errno.ts';
import { ShimError, type ErrorCode } from '../error.ts';

/** A failure, as one thread tells the other. */
export interface Failure {
  readonly message: string;
  readonly stack: string | undefined;
  /** Of a ShimError. */
  readonly shim: {
    readonly code: string;
    readonly errno: string | undefined;
    readonly syscall: string | undefined;
  } | null;
}

export function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { message: String(error), stack: undefined, shim: null };
  const { message, stack } = error;
  const { code, errno, syscall } = error as ShimError;
  return { message, stack, shim: error instanceof ShimError ? { code, errno, syscall } : null };
}

export function errorOf({ message, stack, shim }: Failure): Error {
  const error =
    shim === null
      ? new Error(message)
      : new ShimError(shim.code as ErrorCode, message, {
          ...(shim.errno !== undefined && { errno: shim.errno as ErrnoName }),
          ...(shim.syscall !== undefined && { syscall: shim.syscall }),
        });
  if (stack !== undefined) error.stack = stack;
  return error;
}
