import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { StreamResult, TransferResult } from '../../src/cli/transfer-control.ts';
import { vfioRecords } from '../../src/qemu-stream/qemu-file.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli, USAGE, type Ended } from '../support/cli-run.ts';

beforeAll(requireCli);

const QAT = '0000:00:04.0';

describe('stream', () => {
  let directory = '';
  const at = (name: string): string => join(directory, name);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-stream-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function use(vector: string): string {
    const file = at('vm.mig');
    const gz = readFileSync(new URL(`../vectors/${vector}.migration.gz`, import.meta.url));
    writeFileSync(file, gunzipSync(gz));
    return file;
  }
  const old = (): string => use('qemu-5.2-qat64k-mtty');
  const elsewhere = (): string => use('qemu-10.0-multifd-qat64k');

  async function done<T extends StreamResult | TransferResult>(...args: string[]): Promise<T> {
    const { exit, stdout, stderr } = await runCli([...args, '--json']);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    return JSON.parse(stdout) as T;
  }

  function refused(run: Ended, message: string, exit = FAILED): void {
    expect(run).toMatchObject({ exit, stdout: '', stderr: expect.stringContaining(message) as string });
    expect(run.stderr.trimEnd()).not.toContain('\n');
  }

  it('lists the devices for people', async () => {
    const { exit, stdout, stderr } = await runCli(['stream', old()]);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    for (const line of [
      /^machine +pc-i440fx-5\.2$/m,
      /^device +0000:00:04\.0\/vfio$/m,
      /^id +8086:4941, subsystem 8086:4941$/m,
      /^layout +5\.2: .*only QEMU 5\.2 loads it$/m,
      /^protocol +v1$/m,
      /^data +65568 bytes in 3 records$/m,
      /^data +60 bytes in 2 records$/m,
      /^configuration +341 bytes at offset 595624$/m,
      /^sections +1 START, 1 PART, 1 END$/m,
    ]) {
      expect(stdout).toMatch(line);
    }
  });

  it('says that a state is elsewhere, and takes nothing out of such a file', async () => {
    const { stdout } = await runCli(['stream', elsewhere()]);
    expect(stdout).toMatch(/^state +elsewhere: it went through multifd channels, and is not in this file$/m);
    expect(stdout).toMatch(/^data +32 bytes in 1 record, of pre-copy only$/m);
    for (const [option = '', value = ''] of [
      ['--extract', QAT],
      ['--to-layout', '6.2'],
    ]) {
      const run = await runCli(['stream', elsewhere(), option, value, '-o', at('new')]);
      refused(run, 'its state is not in this file, it went through multifd channels [ERR_FEATURE_UNSUPPORTED]');
    }
    expect(readdirSync(directory)).toEqual(['vm.mig']);
  });

  it('extracts what save of the same device saves, and restore takes it', async () => {
    const file = old();
    const found = await done('stream', file, '--extract', QAT, '-o', at('state'));
    const { sha256, bytes, buffers, guestSha256 } = await done<TransferResult>(
      'save',
      'sim:qat,size=64K,seed=3',
      at('saved'),
    );
    const identity = { bus: 'pci', id: '8086:4941', subsystem: '8086:4941' };
    expect(found).toMatchObject({ device: QAT, protocol: 'v1', bytes, buffers, sha256, identity });
    expect(statSync(at('state')).mode & 0o777).toBe(0o600);
    expect(await done('restore', 'sim:qat,size=64K', at('state'))).toMatchObject({ guestSha256 });
    refused(
      await runCli(['restore', 'sim:hisi,size=64K', at('state')]),
      'id is "8086:4941" there and "19e5:a256" here',
    );
  });

  it('puts a state in, and the file is the same again with the first', async () => {
    const file = old();
    await done('stream', file, '--extract', `${QAT}/vfio`, '-o', at('state'));
    await done('save', 'sim:qat,size=64K,seed=4', at('other'));
    await done('stream', file, '--replace', `${QAT}=${at('other')}`, '-o', at('changed'));
    await done('stream', at('changed'), '--extract', `${QAT}#0`, '-o', at('again'));
    const ends = (name: string): Buffer => readFileSync(at(name)).subarray(4096);
    expect(ends('again')).toBeBytes(ends('other'));
    await done('stream', at('changed'), '--replace', `${QAT}=${at('state')}`, '-o', at('first'));
    await done('stream', at('first'), '--extract', QAT, '-o', at('once-more'));
    expect(ends('once-more')).toBeBytes(ends('state'));
  });

  it('puts no state of another device in, and none that is damaged', async () => {
    const file = old();
    await done('save', 'sim:hisi,size=64K', at('hisi'));
    const other = await runCli(['stream', file, '--replace', `${QAT}=${at('hisi')}`, '-o', at('new')]);
    refused(other, 'id is "19e5:a256" there and "8086:4941" here');
    refused(other, '[ERR_OTHER_DEVICE, EINVAL]');
    truncateSync(at('hisi'), 5000);
    const cut = await runCli(['stream', file, '--replace', `${QAT}=${at('hisi')}`, '-o', at('new')]);
    refused(cut, `${at('hisi')}: is cut short`);
    expect(readdirSync(directory).toSorted()).toEqual(['hisi', 'vm.mig']);
  });

  it('converts the layout of QEMU 5.2, once', async () => {
    const file = old();
    const found = await done('stream', file, '--to-layout', '6.2', '-o', at('new'));
    expect(found).toMatchObject({ action: 'convert', devices: [QAT, '0000:00:05.0'] });
    const kinds = vfioRecords(readFileSync(at('new')))
      .filter(({ tag }) => tag === 'DEV_CONFIG_STATE')
      .map(({ section }) => section.kind);
    expect(kinds).toEqual(['full', 'full']);
    refused(
      await runCli(['stream', at('new'), '--to-layout', '6.2', '-o', at('newer')]),
      'has the layout of QEMU 6.2 already [ERR_FEATURE_UNSUPPORTED]',
    );
  });

  it('replaces a file with --force only, be it the one that is read', async () => {
    const file = old();
    chmodSync(file, 0o644);
    refused(await runCli(['stream', file, '--to-layout', '6.2', '-o', file]), `${file}: exists already; --force`);
    expect(await done('stream', file)).toMatchObject({ devices: [{ layout: '5.2' }, { layout: '5.2' }] });
    await done('stream', file, '--to-layout', '6.2', '-o', file, '--force');
    expect(await done('stream', file)).toMatchObject({ devices: [{ layout: '6.2' }, { layout: '6.2' }] });
    expect(readdirSync(directory)).toEqual(['vm.mig']);
  });

  it.each([
    ['cut short', (file: string) => truncateSync(file, 600_000), 'ERR_STREAM_TRUNCATED', /offset \d+/],
    [
      'of another kind',
      (file: string) => writeFileSync(file, 'x'.repeat(99)),
      'ERR_STREAM_CORRUPT',
      /magic 0x78787878/,
    ],
    ['empty', (file: string) => truncateSync(file, 0), 'ERR_STREAM_TRUNCATED', /at offset 0: 4 of 4 bytes missing/],
  ])('refuses a file %s, and leaves none', async (_, damage, code, message) => {
    const file = old();
    damage(file);
    for (const args of [[], ['--extract', QAT, '-o', at('new')], ['--to-layout', '6.2', '-o', at('new')]]) {
      const run = await runCli(['stream', file, ...args]);
      refused(run, `vfio-shim: ${file}: `);
      expect(run.stderr).toMatch(message);
      expect(run.stderr).toContain(`[${code}]`);
    }
    expect(readdirSync(directory)).toEqual(['vm.mig']);
  });

  it.each([
    [[], "missing argument 'file'"],
    [['-'], 'a migration file is not read from stdin'],
    [['f', '-o', 'new'], 'give --extract, --replace or --to-layout too'],
    [['f', '--extract', QAT], '--extract needs --output NEW'],
    [['f', '--replace', `${QAT}=s`], '--replace needs --output NEW'],
    [['f', '--to-layout', '6.2'], '--to-layout needs --output NEW'],
    [['f', '--to-layout', '5.2', '-o', 'new'], '--to-layout 5.2: is none of 6.2'],
    [['f', '--extract', QAT, '-o', '-'], 'a file gets its name when it is complete'],
    [['f', '--replace', QAT, '-o', 'new'], `--replace ${QAT}: is not DEVICE=STATE`],
    [['f', '--replace', `${QAT}=-`, '-o', 'new'], 'a state is not read from stdin'],
    [['f', '--extract', QAT, '--to-layout', '6.2', '-o', 'new'], 'cannot be used with option'],
  ])('%j is a wrong command line', async (args, message) => {
    refused(await runCli(['stream', ...args]), message, USAGE);
  });

  it('names the devices that there are if DEVICE is none of them', async () => {
    for (const name of ['vfio', `${QAT}#1`, '0000:00:06.0']) {
      const run = await runCli(['stream', old(), '--extract', name, '-o', at('new')]);
      refused(run, `device "${name}": is not in the file; its devices: 0000:00:04.0, 0000:00:05.0`, USAGE);
    }
    expect(readdirSync(directory)).toEqual(['vm.mig']);
  });
});
