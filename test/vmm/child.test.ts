import { expect, it } from 'vitest';
import { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';

const shell = (script: string): string[] => ['sh', '-c', script];

it('keeps what a child prints, and hands it on by lines', async () => {
  const lines: string[] = [];
  const child = new Child(shell('echo one; echo oops >&2; printf two'), {
    onOutput: (line) => lines.push(`out: ${line}`),
    onError: (line) => lines.push(`err: ${line}`),
  });
  expect(await child.exited).toEqual({ code: 0, signal: null });
  expect([child.stdout, child.stderr]).toEqual(['one\ntwo', 'oops\n']);
  expect(lines.toSorted()).toEqual(['err: oops', 'out: one', 'out: two']);
});

it('tells how a child ended, and its last words', async () => {
  const child = new Child(shell('echo first >&2; echo last >&2; exit 3'));
  expect(child.fate).toBe(undefined);
  expect(child.lastWords).toBe('');
  await child.exited;
  expect(child.fate).toBe('process ended with exit code 3: first\nlast');
  expect(child.lastWords).toBe('; its last words: last');
});

it('takes a program that is not there for one that has ended', async () => {
  const child = new Child(['/no/such/program']);
  expect((await child.exited).code).not.toBe(0);
  expect(child.lastWords).toContain('ENOENT');
  child.kill();
});

it.each([
  ['with it', 'sleep 300 & echo started; wait', { code: null, signal: 'SIGKILL' }],
  ['and left behind', 'sleep 300 & echo started', { code: 0, signal: null }],
])('kills what a child has started %s', async (_, script, exit) => {
  const child = new Child(shell(script));
  await poll(() => (child.stdout === '' ? undefined : true), 20_000, 'the child to start another');
  if (exit.code === 0) await poll(() => child.exit, 20_000, 'the first to end');
  child.kill();
  expect(await child.exited).toEqual(exit); // comes when all that shares its output has ended
});
