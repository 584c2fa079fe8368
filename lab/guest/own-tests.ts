import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check, note } from './check.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const MINUTE = 60_000;

/**
 * Has vitest run tests of the project in this guest, which has its sources and what npm installs. What a test itself allows is as it
 * is; what it does not say may take ten times as long as elsewhere. Each file is told of when it has been run.
 */
export async function checkTests(...files: readonly string[]): Promise<void> {
  await check(
    `the project's tests: ${files.join(', ')}`,
    async (bed) => {
      const options = ['--configLoader', 'runner', '--project', 'unit', '--reporter', 'default', '--no-color'];
      const patience = [`--testTimeout=${5 * MINUTE}`, `--hookTimeout=${5 * MINUTE}`];
      const vitest = join(PROJECT, 'node_modules/vitest/vitest.mjs');
      const command = [process.execPath, vitest, 'run', '--root', PROJECT, ...options, ...patience, ...files];
      const child = bed.spawn(command, { onOutput: (line) => /\.test\.ts|^ +Tests /.test(line) && note(line.trim()) });
      assert.deepEqual(await child.exited, { code: 0, signal: null }, `${child.stdout}${child.stderr}`.slice(-8000));
    },
    { ms: 20 * MINUTE },
  );
}
