import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLI } from '../../tools/vmm/cli.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { ARCHIVES } from '../events.ts';
import { check, note } from './check.ts';

/** Whether the command works on this machine at all: by its own word, and by a migration. */

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** Runs a command to its end, which must be good; returns the JSON that it printed. */
async function json<T>(bed: TestBed, command: readonly string[]): Promise<T> {
  const child = bed.spawn(command);
  const exit = await child.exited;
  assert.deepEqual(exit, { code: 0, signal: null }, `${child.stdout}${child.stderr}`);
  return JSON.parse(child.stdout) as T;
}

interface Found {
  readonly checks: readonly { readonly name: string; readonly level: string; readonly what: string }[];
}

/** `doctor` fails nothing, and the demo migrates a device from a small v1 VMM to another. `vfioShim` is how the command is started. */
async function checkCommand(title: string, vfioShim: (...args: string[]) => readonly string[]): Promise<void> {
  await check(`${title}: doctor has nothing that run lacks`, async (bed) => {
    const { checks } = await json<Found>(bed, vfioShim('doctor', '--json'));
    for (const { level, what } of checks) if (level !== 'ok') note(`${level} ${what}`);
    assert.deepEqual(
      checks.filter(({ level }) => level === 'fail'),
      [],
    );
    for (const name of ['seccomp', 'ptrace', 'run --device'])
      assert.ok(
        checks.some((found) => found.name === name),
        name,
      );
  });
  await check(`${title}: the demo migrates a device between small VMMs`, async (bed) => {
    await json(bed, vfioShim('demo', '--no-qemu', '--json'));
  });
}

/** The command as npm installs it. */
export function checkBuilt(): Promise<void> {
  return checkCommand('as built', (...args) => [process.execPath, CLI, ...args]);
}

/** The archive with a Node of its own, where there is no other: in a mount namespace, in which that of this guest cannot be executed. */
export async function checkArchive(): Promise<void> {
  const [archive = '', ...more] = readdirSync(join(PROJECT, ARCHIVES));
  assert.deepEqual(more, []);
  const at = join('/tmp', archive.replace(/\.tar\.xz$/, ''));
  await check('the archive is unpacked', async (bed) => {
    const { exited } = bed.spawn(['tar', '-xJf', join(PROJECT, ARCHIVES, archive), '-C', '/tmp']);
    assert.deepEqual(await exited, { code: 0, signal: null });
  });
  const script = `mount -o bind /dev/null ${process.execPath} && ! ${process.execPath} --version 2>/dev/null && exec "$@"`;
  await checkCommand(archive, (...args) => [
    'unshare',
    '-m',
    'sh',
    '-c',
    script,
    'sh',
    join(at, 'bin/vfio-shim'),
    ...args,
  ]);
}
