import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { CLI } from '../../tools/vmm/cli.ts';

/** Runs one of our commands to its end. */
export function shim(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8' });
}

/** The same with `--json`: what it printed. It must succeed without a word on stderr. */
export function json(...args: readonly string[]): Record<string, unknown> {
  const { status, stdout, stderr } = shim(...args, '--json');
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return JSON.parse(stdout) as Record<string, unknown>;
}
