import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli, USAGE } from '../support/cli-run.ts';

const SPEC = 'sim:qat,size=64K,seed=7';

describe('vfio-shim replay', () => {
  let directory = '';
  const path = (name: string): string => join(directory, name);
  beforeAll(async () => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'shim-replay-'));
    const saved = await runCli(['save', SPEC, path('state'), '--record', path('saved.jsonl')]);
    expect(saved.exit).toEqual(OK);
    const restored = await runCli([
      'restore',
      'sim:qat,size=64K',
      path('state'),
      '--record',
      path('restored.jsonl'),
      '--record-data',
    ]);
    expect(restored.exit).toEqual(OK);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('ends with 0 if the device answers as the recorded one, and says so in JSON too', async () => {
    const { exit, stdout, stderr } = await runCli([
      'replay',
      path('saved.jsonl'),
      '--device',
      SPEC,
      '--strict',
      '--json',
    ]);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({
      format: 'vfio-shim replay',
      version: 1,
      same: true,
      devices: [{ device: SPEC, recordedAs: SPEC, contents: true, departed: null, differences: [] }],
    });
    expect((await runCli(['replay', path('restored.jsonl'), '--device', 'sim:qat,size=64K'])).exit).toEqual(OK);
  });

  it('ends with 1 if it does not, with the first difference first', async () => {
    const { exit, stdout } = await runCli(['replay', path('restored.jsonl'), '--device', 'sim:hisi,size=64K']);
    expect(exit).toEqual(FAILED);
    expect(stdout.split('\n')[1]).toMatch(/^ {2}line \d+: write data 32 B: errno: EINVAL, recorded success$/);
    const json = await runCli(['replay', path('restored.jsonl'), '--device', 'sim:hisi,size=64K', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ same: false, devices: [{ differences: [{ aspect: 'errno' }] }] });
  });

  it('has a device for each of the recording, or one for all', async () => {
    const { exit, stderr } = await runCli(['replay', path('saved.jsonl'), '--device', SPEC, '--device', SPEC]);
    expect(exit).toEqual(USAGE);
    expect(stderr).toMatch(/2 were given, and .* has 1 devices that were used/);
  });

  it('needs the data that the VMM gave', async () => {
    const without = readFileSync(path('restored.jsonl'), 'utf8').replaceAll(/,"at":\d+/g, '');
    writeFileSync(path('without.jsonl'), without);
    const { exit, stderr } = await runCli(['replay', path('without.jsonl'), '--device', 'sim:qat,size=64K']);
    expect(exit).toEqual(USAGE);
    expect(stderr).toMatch(/record with --record-data \[ERR_ARGUMENT\]\n$/);
  });
});
