import { expect, it } from 'vitest';
import { poll } from '../../src/vmm/deadline.ts';
import { MarkedChild } from '../../tools/vmm/marked-child.ts';

const shell = (script: string): string[] => ['sh', '-c', script];

/** The process id that a child prints. */
function printed(child: MarkedChild): Promise<number> {
  const pid = (): number | undefined => (child.stdout.includes('\n') ? Number(child.stdout) : undefined);
  return poll(pid, 20_000, 'a process id');
}

it('knows what a child has started, in a session of its own too, and kills it', async () => {
  const child = new MarkedChild(shell('setsid sleep 300 >/dev/null 2>&1 & echo $!'));
  const pid = await printed(child);
  await child.exited;
  const found = (): true | undefined =>
    child.processes().some(({ commandLine }) => commandLine === 'sleep 300') ? true : undefined;
  await poll(found, 20_000, 'sleep to run');
  expect(child.processes().map((process) => process.pid)).toEqual([pid]);
  expect(await child.leftBehind(0)).toEqual([`process ${pid}: sleep 300`]);
  expect(await child.leftBehind(20_000)).toEqual([]);
});

it('leaves nothing behind if all ends in time', async () => {
  const child = new MarkedChild(shell('read line'), { stdin: 'pipe' });
  expect(child.processes()).toHaveLength(1);
  child.stdin.end();
  expect(await child.leftBehind(20_000)).toEqual([]);
});

it('signals the process alone', async () => {
  const child = new MarkedChild(shell("trap 'kill $!; exit 7' TERM; sleep 300 & echo $!; while :; do sleep 0.1; done"));
  await printed(child);
  child.signal('SIGTERM');
  expect(await child.exited).toEqual({ code: 7, signal: null });
});

it('closes the output of a child, which cannot write any more', async () => {
  const child = new MarkedChild(['yes']);
  await poll(() => (child.stdout === '' ? undefined : true), 20_000, 'yes to print');
  child.closeOutput();
  expect((await child.exited).code).toBe(1);
  expect(child.stderr).toMatch(/^yes: standard output: /);
});

it('gives a child the environment that it is told, and a mark', async () => {
  const child = new MarkedChild(['/usr/bin/env'], { env: { ONLY: 'this' } });
  await child.exited;
  expect(child.stdout).toMatch(/^ONLY=this\nVFIO_SHIM_TEST_BED=[0-9a-f]{16}\n$/);
});
