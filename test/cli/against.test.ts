import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judge, type End } from '../../src/cli/against.ts';
import { readAgainst } from '../../src/cli/against-file.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli, type Ended } from '../support/cli-run.ts';
import { thrownBy } from '../support/errno.ts';

const MLX5: End = {
  protocol: 'v2',
  migrationFlags: 7,
  identity: { bus: 'pci', id: '15b3:101e', driver: 'mlx5_vfio_pci', regions: '0=65536' },
  dataSize: null,
  largestBuffer: null,
  dataSection: null,
};

describe('judge', () => {
  const verdict = (source: Partial<End>, destination: Partial<End> = {}) => {
    const { takes, findings } = judge({ ...MLX5, ...source }, { ...MLX5, ...destination });
    return [takes, ...findings.filter(({ answer }) => answer !== 'yes').map(({ about }) => about)];
  };
  const { identity } = MLX5;

  it.each([
    [{}, {}, ['yes']],
    [{ protocol: 'none' }, {}, ['no', 'protocol']],
    [{}, { protocol: 'none' }, ['no', 'protocol']],
    [{ protocol: 'v1' }, {}, ['unknown', 'protocol']],
    [{}, { identity: { ...identity, id: '8086:4941' } }, ['no', 'identity']],
    [{}, { identity: { ...identity, regions: '0=4096' } }, ['no', 'identity']],
    [{}, { identity: { ...identity, driver: 'other' } }, ['unknown', 'driver']],
    [{}, { identity: { bus: 'pci', driver: 'mlx5_vfio_pci' } }, ['unknown', 'identity']],
    [{}, { identity: { id: '15b3:101e' } }, ['unknown', 'driver']],
    [{ migrationFlags: 7 }, { migrationFlags: 3 }, ['unknown', 'flags']],
    [{ migrationFlags: 7 }, { migrationFlags: 5 }, ['yes']],
    [{ migrationFlags: 3 }, { migrationFlags: 7 }, ['yes']],
    [{ migrationFlags: null }, { migrationFlags: 3 }, ['yes']],
    [{ dataSize: 10 }, { dataSize: 10 }, ['yes']],
    [{ dataSize: 11 }, { dataSize: 10 }, ['unknown', 'size']],
    [{ protocol: 'v1', largestBuffer: 11 }, { protocol: 'v1', dataSection: 10 }, ['unknown', 'buffers']],
    [{ protocol: 'v1', largestBuffer: 10 }, { protocol: 'v1', dataSection: 10 }, ['yes']],
    [{ protocol: 'v1' }, { identity: { ...identity, id: '1:2' } }, ['no', 'protocol', 'identity']],
  ] as const)('of %j and %j: %j', (source, destination, expected) => {
    expect(verdict(source, destination)).toEqual(expected);
  });
});

describe('vfio-shim probe --against', () => {
  let directory = '';
  const path = (name: string): string => join(directory, name);
  const against = (device: string, file: string, ...more: string[]): Promise<Ended> =>
    runCli(['probe', device, '--against', path(file), ...more]);
  beforeAll(async () => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'shim-against-'));
    writeFileSync(path('qat.json'), (await runCli(['probe', 'sim:qat,size=64K', '--json'])).stdout);
    const saved = await runCli(['save', 'sim:vendor-v1,size=64K,section=64K', path('vendor.state')]);
    expect(saved.exit).toEqual(OK);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('ends with 0 for yes, 1 for no and 3 if that cannot be told', async () => {
    const yes = await against('sim:qat,size=64K', 'qat.json');
    expect(yes).toMatchObject({ exit: OK, stderr: '' });
    expect(yes.stdout).toMatch(/^Takes the state of .*qat\.json: yes$/m);
    const no = await against('sim:qat,size=128K', 'qat.json', '--json');
    expect(no.exit).toEqual(FAILED);
    expect(JSON.parse(no.stdout)).toMatchObject({
      format: 'vfio-shim probe',
      version: 1,
      against: { kind: 'probe', takes: 'no', file: path('qat.json') },
    });
    const unknown = await against('sim:vendor-v1,size=64K,section=16K', 'vendor.state');
    expect(unknown.exit).toEqual({ code: 3, signal: null });
    expect(unknown.stdout).toMatch(/^buffers +cannot tell: of up to \d+ bytes/m);
    expect((await against('sim:vendor-v1,size=64K,section=64K', 'vendor.state')).exit).toEqual(OK);
  });

  it('says what is wrong with the file', () => {
    const wrong = (text: string): unknown => {
      writeFileSync(path('wrong'), text);
      return thrownBy(() => readAgainst(path('wrong'))).code;
    };
    expect(wrong('')).toBe('ERR_FILE_CORRUPT');
    expect(wrong('{}')).toBe('ERR_FILE_CORRUPT');
    expect(wrong('{"format":"vfio-shim probe","version":2')).toBe('ERR_FILE_CORRUPT');
    const probed = {
      format: 'vfio-shim probe',
      version: 2,
      protocol: 'v2',
      migrationFlags: 7,
      identity: {},
      dataSize: null,
      regions: [],
    };
    expect(wrong(JSON.stringify(probed))).toBe('ERR_FILE_VERSION');
    expect(wrong(JSON.stringify({ ...probed, version: 1, protocol: 'v3' }))).toBe('ERR_FILE_CORRUPT');
    expect(wrong(JSON.stringify({ ...probed, version: 1, identity: { id: 5 } }))).toBe('ERR_FILE_CORRUPT');
    expect(thrownBy(() => readAgainst(path('none'))).code).toBe('ERR_FILE');
  });
});
