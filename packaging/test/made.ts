import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { run } from '../../scripts/lib/process.mjs';
import type { Entered } from './clean-root.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const EPOCH = '1700000000';

/** Makes the packages in a directory, or those of a kind, in an environment that is as it may be. */
export async function makePackages(directory: string, env: Record<string, string> = {}, only?: string): Promise<void> {
  const tsx = join(root, 'node_modules/.bin/tsx');
  const kind = only === undefined ? [] : ['--only', only];
  await run(tsx, [join(root, 'packaging/main.ts'), '--out', directory, ...kind], {
    env: { SOURCE_DATE_EPOCH: EPOCH, ...env },
  });
}

/** The package in a directory whose name matches. */
export function packageIn(directory: string, pattern: RegExp): string {
  return join(directory, readdirSync(directory).find((each) => pattern.test(each)) ?? '');
}

/** What a command printed, if it has succeeded. */
export function succeeded({ status, stdout, stderr }: Entered): string {
  expect(status, `${stdout}${stderr}`).toBe(0);
  return stdout;
}
