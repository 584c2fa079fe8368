import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lacksForRun } from '../support/host.ts';
import { codeBlocks, documents, root } from './documents.ts';

const cli = join(root, 'dist/cli/main.js');

/** Lines `$ vfio-shim ...` of a console block, each with what it prints. */
function sessions(text: string): { command: string; output: string }[] {
  return codeBlocks(text, 'console').flatMap((block) =>
    block
      .split(/^\$ /m)
      .slice(1)
      .map((session) => {
        const end = session.indexOf('\n');
        return { command: session.slice(0, end), output: session.slice(end + 1) };
      }),
  );
}

describe('console blocks in the documents', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-commands-'));
  beforeAll(() => symlinkSync(cli, join(directory, 'vfio-shim')));
  afterAll(() => rmSync(directory, { recursive: true }));

  const examples = documents.flatMap(({ path, text }) => sessions(text).map((session) => ({ path, ...session })));

  it('are there', () => {
    expect(examples.length).toBeGreaterThan(5);
    expect(existsSync(cli), 'dist/ is missing: npm run build').toBe(true);
  });

  const lacking = lacksForRun();
  it.for(examples)('$path: $command', ({ command, output }, { skip }) => {
    skip(lacking !== undefined && command.includes('vfio-shim run'), lacking);
    const env = { ...process.env, PATH: `${directory}${delimiter}${process.env['PATH']}` };
    const { stdout, stderr } = spawnSync('/bin/sh', ['-c', command], { cwd: directory, env, encoding: 'utf8' });
    expect(stdout + stderr).toBe(output);
  });
});
