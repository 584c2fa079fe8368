import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { check } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { assertArrived, OLD, startDestination, startSource } from '../guest/pair.ts';
import { RootShell } from '../guest/root-shell.ts';
import { becomeUser, USER } from '../guest/user.ts';
import { underShim } from '../guest/vm.ts';

/** Who may run the shim on a device of the kernel: what Yama lets supervisors do to their target. */

const SCOPE = '/proc/sys/kernel/yama/ptrace_scope';
const root = new RootShell();
const before = readFileSync(SCOPE, 'utf8').trim();

async function setScope(scope: string): Promise<void> {
  await root.run(`echo ${scope} > ${SCOPE}`);
  assert.equal(readFileSync(SCOPE, 'utf8').trim(), scope);
}

/** A whole migration as this process's user. */
async function migrate(bed: TestBed, seed: number, from?: Mtty, to?: Mtty): Promise<void> {
  const [source, destination] = await Promise.all([
    startSource(bed, OLD, seed, 'source', from === undefined ? undefined : [from]),
    startDestination(bed, OLD, 'destination', to === undefined ? undefined : [to]),
  ]);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await assertArrived(bed, source, destination, seed);
}

await check('root migrates if ptrace_scope is 2', async (bed) => {
  await setScope('2');
  await migrate(bed, 0x35);
});

const [from, to] = [Mtty.create('mtty-2', USER), Mtty.create('mtty-2', USER)];
becomeUser();

for (const scope of ['0', '1']) {
  await check(`an ordinary user migrates if ptrace_scope is ${scope}`, async (bed) => {
    await setScope(scope);
    assert.equal(process.getuid?.(), USER);
    await migrate(bed, 0x5e + Number(scope), from, to);
  });
}

await check(
  'an ordinary user is told in one line that ptrace_scope 2 is too strict, and nothing is run',
  async (bed) => {
    await setScope('2');
    const child = bed.spawn([...underShim('strict', '--present', 'v1'), 'echo', 'it runs']);
    assert.deepEqual(await child.exited, { code: 1, signal: null });
    assert.equal(child.stdout, '');
    assert.match(child.stderr, /^vfio-shim: run needs CAP_SYS_PTRACE if kernel\.yama\.ptrace_scope is 2 .*\n$/);
  },
);

await check('doctor tells an ordinary user that ptrace_scope 2 is too strict', async (bed) => {
  await setScope('2');
  const child = bed.spawn([process.execPath, CLI, 'doctor', '--json']);
  assert.deepEqual(await child.exited, { code: 1, signal: null });
  const { checks } = JSON.parse(child.stdout) as { checks: { name: string; level: string }[] };
  const failing = checks.filter(({ level }) => level === 'fail').map(({ name }) => name);
  assert.deepEqual(failing, ['pidfd_getfd', 'yama', 'run', 'run --device']);
});

await setScope(before);
await root.close();
