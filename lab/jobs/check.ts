import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { deviationsNamed, type Conclusion } from '../../src/check/index.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { check, note } from '../guest/check.ts';
import type { Mdev } from '../guest/mdev.ts';
import { Mtty } from '../guest/mtty.ts';
import { RawDevice } from '../guest/raw-device.ts';
import { V1Mem } from '../guest/v1mem.ts';

/** The rules of `vfio-shim check`, on drivers of a real kernel: what mtty breaks is what its list of deviations says. */

/** What the rules come to, with no deviation known. */
function checked({ group, uuid }: Mdev): Conclusion {
  const args = [CLI, 'check', `vfio:${group}:${uuid}`, '--deviations', 'none', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const conclusion = JSON.parse(stdout) as Conclusion;
  for (const { id, verdict, why, isFailure } of conclusion.results) {
    if (verdict === 'broken' || isFailure === true) note(`${verdict} ${id}: ${why}`);
  }
  assert.equal(status, conclusion.conforms ? 0 : 1, stderr);
  return conclusion;
}

function broken({ results }: Conclusion): string[] {
  return results.flatMap(({ id, verdict }) => (verdict === 'broken' ? id : [])).toSorted();
}

for (const type of ['mtty-1', 'mtty-2'] as const) {
  await check(`${type} breaks the rules of its list of deviations, all of them and no others`, () => {
    const mtty = Mtty.create(type);
    const known = deviationsNamed('mtty')?.deviations.map(({ rule }) => rule) ?? [];
    const conclusion = checked(mtty);
    assert.deepEqual(broken(conclusion), known.toSorted());
    using device = new RawDevice(mtty);
    assert.equal(device.state(), 'RUNNING');
  });
}

await check('with its deviations mtty conforms, in TAP', () => {
  const { group, uuid } = Mtty.create('mtty-1');
  const { status, stdout } = spawnSync(
    process.execPath,
    [CLI, 'check', `vfio:${group}:${uuid}`, '--deviations', 'mtty'],
    { encoding: 'utf8' },
  );
  assert.match(stdout, /^TAP version 14\n1\.\.\d+\n/);
  assert.doesNotMatch(stdout, /did not happen/);
  assert.equal(status, 0, stdout);
});

for (const data of ['accessed', 'mapped'] as const) {
  await check(`v1mem breaks no rule of v1, data ${data}`, () => {
    assert.deepEqual(broken(checked(new V1Mem(data))), []);
  });
}
