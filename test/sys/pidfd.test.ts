import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { beforeEach, expect, test } from 'vitest';
import { duplicateFd } from '../../src/sys/pidfd.ts';
import { outcome } from '../support/errno.ts';
import { lacksForRun } from '../support/host.ts';

const lacking = lacksForRun();
beforeEach(({ skip }) => skip(lacking !== undefined, lacking));

async function start(): Promise<ChildProcess & { readonly pid: number }> {
  const child = spawn('sleep', ['60'], { stdio: ['pipe', 'pipe', 'ignore'] });
  await once(child, 'spawn');
  return child as ChildProcess & { readonly pid: number };
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** What a duplicate of another process's descriptor is. */
function fileBehind(pid: number, fd: number): string | undefined {
  using own = duplicateFd(pid, fd);
  return own === undefined ? undefined : readlinkSync(`/proc/self/fd/${own.number}`);
}

test('duplicates descriptors of one process after another, and says which are not there', async () => {
  const [one, two] = [await start(), await start()];
  try {
    for (const { pid } of [one, two, two, one]) {
      for (const fd of [0, 1]) expect(fileBehind(pid, fd)).toBe(readlinkSync(`/proc/${pid}/fd/${fd}`));
      expect(fileBehind(pid, 2)).toBe('/dev/null');
      expect(duplicateFd(pid, 999)).toBeUndefined();
    }
  } finally {
    await stop(one);
    await stop(two);
  }
});

test('a process that ended is ESRCH, however often it was asked before, and another is found after it', async () => {
  const one = await start();
  expect(fileBehind(one.pid, 2)).toBe('/dev/null');
  await stop(one);
  expect(outcome(() => fileBehind(one.pid, 2))).toBe('ESRCH');
  expect(outcome(() => fileBehind(one.pid, 2))).toBe('ESRCH');
  const two = await start();
  expect(fileBehind(two.pid, 2)).toBe('/dev/null');
  await stop(two);
});

test('keeps a bounded number of them, of many processes in turn', async () => {
  const held = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes('pidfd');
      } catch {
        return false; // that of the directory itself
      }
    }).length;
  const children = await Promise.all(Array.from({ length: 20 }, start));
  try {
    for (let turn = 0; turn < 2; turn += 1)
      for (const { pid } of children) expect(fileBehind(pid, 0)).toBe(readlinkSync(`/proc/${pid}/fd/0`));
    expect(held()).toBeGreaterThan(0);
    expect(held()).toBeLessThanOrEqual(16);
  } finally {
    await Promise.all(children.map(stop));
  }
});
