import { Child, type Exit } from '../../src/vmm/child.ts';
import { within } from '../../src/vmm/deadline.ts';
import { CLI } from '../../tools/vmm/cli.ts';

export interface Ended {
  readonly exit: Exit;
  readonly stdout: string;
  readonly stderr: string;
}

export const OK: Exit = { code: 0, signal: null };
export const FAILED: Exit = { code: 1, signal: null };
export const USAGE: Exit = { code: 2, signal: null };

/** Starts the command. */
export function cli(args: readonly string[], env: NodeJS.ProcessEnv = {}, prefix: readonly string[] = []): Child {
  return new Child([...prefix, process.execPath, CLI, ...args], { env: { ...process.env, ...env } });
}

/** Runs the command to its end, which must come in time. */
export async function runCli(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  prefix: readonly string[] = [],
): Promise<Ended> {
  return ended(cli(args, env, prefix));
}

export async function ended(child: Child, patience = 20_000): Promise<Ended> {
  const exit = await within(child.exited, patience, () => `${child.command.join(' ')} does not end: ${child.stderr}`);
  return { exit, stdout: child.stdout, stderr: child.stderr };
}
