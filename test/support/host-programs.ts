import { spawnSync } from 'node:child_process';
import { compiled, missingCompiler } from './compiler.ts';

/**
 * 32-bit system calls: a program of ours that makes one ends well. A kernel without them kills it. As in host.ts, but
 * it takes a compiler to ask; without one there is no test that would need the answer.
 */
export function lacks32Bit(prefix: readonly string[] = []): string | undefined {
  if (missingCompiler() !== undefined) return undefined;
  const [file, ...args] = [...prefix, compiled('int80')];
  const { status, signal } = spawnSync(file, args);
  return status === 0 ? undefined : `no 32-bit system calls: ${signal ?? `exit code ${status}`}`;
}
