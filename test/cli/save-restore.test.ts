import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
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
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TransferResult } from '../../src/cli/transfer-control.ts';
import { DRIVERS } from '../../src/sim/index.ts';
import type { StateHeader } from '../../src/state-file/format.ts';
import { NewFile } from '../../src/state-file/new-file.ts';
import { OpenFile } from '../../src/state-file/open-file.ts';
import { StateReader } from '../../src/state-file/reader.ts';
import { StateWriter } from '../../src/state-file/writer.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksNobody, NOBODY } from '../support/host.ts';
import { cli, ended, FAILED, OK, runCli, USAGE, type Ended } from '../support/cli-run.ts';
import { inShort } from '../support/runs.ts';

const noNobody = lacksNobody();

describe('save and restore of simulated devices', () => {
  let directory = '';
  let file = '';
  /** A state of `sim:qat`. */
  let sample = Buffer.of();
  let sampleSha256: string | undefined;
  beforeAll(async () => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-save-'));
    chmodSync(directory, 0o755);
    file = join(directory, 'state');
    sampleSha256 = (await saved('sim:qat,seed=3')).guestSha256;
    sample = readFileSync(file);
  });
  beforeEach(() => {
    for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
    file = join(directory, 'state');
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const resultOf = ({ stdout }: Ended): TransferResult => JSON.parse(stdout) as TransferResult;
  const files = (): string[] => readdirSync(directory);

  function useSample(): void {
    writeFileSync(file, sample, { mode: 0o600 });
  }

  async function saved(device: string): Promise<TransferResult> {
    const run = await runCli(['save', device, file, '--json']);
    expect(run).toMatchObject({ exit: OK, stderr: '' });
    return resultOf(run);
  }

  function refused(run: Ended, message: RegExp, exit = FAILED): void {
    expect(run).toMatchObject({ exit, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(run.stderr.trimEnd()).not.toContain('\n');
  }

  it.each(inShort(DRIVERS, (_, n) => n % 3 === 0))('%s has the same guest memory at both ends', async (driver) => {
    const device = `sim:${driver}${driver === 'mtty' ? '' : ',size=3M'}`;
    const source = await saved(`${device},seed=3`);
    const run = await runCli(['restore', device, file, '--json']);
    const destination = resultOf(run);
    const { protocol, bytes, buffers, sha256, guestSha256 } = source;
    expect(source).toMatchObject({ command: 'save', device: `${device},seed=3`, file });
    expect(destination).toMatchObject({
      command: 'restore',
      device,
      protocol,
      file,
      bytes,
      buffers,
      sha256,
      guestSha256,
    });
    expect(guestSha256).toMatch(/^[0-9a-f]{64}$/);
    expect(statSync(file).size).toBe(4096 + bytes + 8 * buffers);
    expect([source.states[0], source.states.at(-1)]).toEqual(['RUNNING', 'RUNNING']);
    const loading: Readonly<Record<string, readonly string[]>> = {
      'draft-2018': ['MIGRATION_RESUME', 'MIGRATION_RESUME_COMPLETED'],
      'draft-2019': ['STOPPED_OR_RESUMING'],
    };
    expect(destination.states).toEqual(['RUNNING', ...(loading[protocol] ?? ['RESUMING']), 'RUNNING']);
    expect(source.mibPerSecond).toBeGreaterThan(0);
    expect([run.stderr, files()]).toEqual(['', ['state']]);
  });

  it('prints for people what --json prints for programs', async () => {
    const save = await runCli(['save', 'sim:pds,size=10000', file]);
    expect(save).toMatchObject({ exit: OK, stderr: '' });
    expect(save.stdout).toMatch(
      /^device +sim:pds,size=10000, v2\nfile +.+\ndata +10032 bytes in 1 buffers\ntime +\S+ s, /,
    );
    expect(save.stdout).toMatch(/^states +RUNNING RUNNING_P2P STOP STOP_COPY STOP RUNNING$/m);
    expect(save.stdout).toMatch(/^guest memory +sha256 [0-9a-f]{64}$/m);
  });

  it('logs what it does with -v', async () => {
    const { stderr, exit } = await runCli(['save', 'sim:qat', file, '-v']);
    expect(exit).toEqual(OK);
    for (const text of ['vfio-shim:file', 'vfio-shim:device', 'sim:qat: STOP_COPY', 'complete, 65568 bytes']) {
      expect(stderr).toContain(text);
    }
  });

  describe('a file', () => {
    it('that exists stays, unless --force is given', async () => {
      writeFileSync(file, 'mine');
      refused(
        await runCli(['save', 'sim:qat', file]),
        /state: exists already; --force replaces it \[ERR_FILE, EEXIST\]/,
      );
      expect([readFileSync(file, 'utf8'), files()]).toEqual(['mine', ['state']]);
      const forced = await runCli(['save', 'sim:qat', file, '--force', '--json']);
      expect(resultOf(forced).bytes).toBe(65_568);
      expect(files()).toEqual(['state']);
      expect(statSync(file).mode & 0o777).toBe(0o600);
    });

    it.each([
      ['cut short', 'ERR_FILE_TRUNCATED', (path: string) => truncateSync(path, 50_000)],
      ['cut within its header', 'ERR_FILE_TRUNCATED', (path: string) => truncateSync(path, 100)],
      ['empty', 'ERR_FILE_CORRUPT', (path: string) => truncateSync(path, 0)],
      ['longer', 'ERR_FILE_CORRUPT', (path: string) => writeFileSync(path, 'x', { flag: 'a' })],
      ['of another kind', 'ERR_FILE_CORRUPT', (path: string) => writeFileSync(path, 'x'.repeat(70_000))],
      ['with a wrong byte of data', 'ERR_FILE_CORRUPT', (path: string) => change(path, 60_000)],
      ['with a wrong length', 'ERR_FILE_CORRUPT', (path: string) => change(path, 4096)],
      ['with a wrong identity', 'ERR_FILE_CORRUPT', (path: string) => change(path, 140)],
      ['of a newer version', 'ERR_FILE_VERSION', (path: string) => change(path, 8)],
    ] as const)('%s is refused before the device is opened', async (_what, code, damage) => {
      useSample();
      damage(file);
      const run = await runCli(['restore', 'vfio:/nonexistent/group:0000:01:00.0', file, '--force']);
      refused(run, new RegExp(`^vfio-shim: ${file}: .*\\[${code}, EINVAL\\]\n$`));
    });

    it('that is not there, or is none, is refused', async () => {
      refused(await runCli(['restore', 'sim:qat', file]), /state: no such file or directory \[ERR_FILE, ENOENT\]/);
      refused(await runCli(['restore', 'sim:qat', directory]), /is not a plain file \[ERR_FILE_CORRUPT, EINVAL\]/);
      spawnSync('mkfifo', [file]);
      refused(await runCli(['restore', 'sim:qat', file]), /is not a plain file \[ERR_FILE_CORRUPT, EINVAL\]/);
      const nowhere = join(directory, 'no', 'state');
      refused(await runCli(['save', 'sim:qat', nowhere]), /no such file or directory \[ERR_FILE, ENOENT\]/);
    });

    it.skipIf(noNobody !== undefined)(`that may not be written or read is refused${because(noNobody)}`, async () => {
      refused(
        await runCli(['save', 'sim:qat', file], {}, NOBODY),
        /^vfio-shim: .+state: permission denied \[ERR_FILE, EACCES\]\n$/,
      );
      useSample();
      refused(await runCli(['restore', 'sim:qat', file], {}, NOBODY), /permission denied \[ERR_FILE, EACCES\]/);
    });

    it('that does not fit on the disk leaves nothing', async () => {
      const limited = ['sh', '-c', 'ulimit -f 1000; exec "$@"', 'sh'];
      const run = await runCli(['save', 'sim:qat,size=4M', file], {}, limited);
      refused(run, /state: file too large \[ERR_FILE, EFBIG\]/);
      expect(files()).toEqual([]);
    });
  });

  describe('a device', () => {
    it.each([
      ['sim:hisi', /id is "8086:4941" there and "19e5:a256" here; .*driver is "sim:qat" there/],
      ['sim:qat,size=128K', /memory is "65536" there and "131072" here/],
      ['sim:qat,compat=2', /compat is "1" there and "2" here/],
    ])('%s refuses the state of another', async (device, message) => {
      useSample();
      const run = await runCli(['restore', device, file]);
      refused(run, message);
      refused(run, /\[ERR_OTHER_DEVICE, EINVAL\]\n$/);
      const forced = await runCli(['restore', device, file, '--force']);
      expect(forced.exit).toEqual(FAILED);
      expect(forced.stderr).toMatch(
        /the state is of another device: .*\n.*incompatible device \[ERR_DEVICE, EINVAL\]\n$/,
      );
    });

    it('that differs, and takes the state with --force, runs', async () => {
      useSample();
      const { header, buffers } = contentOf(file);
      {
        using made = new NewFile(file, true);
        const writer = new StateWriter(made);
        for (const buffer of buffers) writer.buffer(buffer);
        writer.finish(header.protocol, { ...header.identity, driver: 'another' });
        made.commit();
      }
      refused(await runCli(['restore', 'sim:qat', file]), /: driver is "another" there and "sim:qat" here; --force/);
      const forced = await runCli(['restore', 'sim:qat', file, '--force', '--json']);
      expect(forced.stderr).toMatch(/^vfio-shim: .+: the state is of another device: .*\n$/);
      expect(resultOf(forced)).toMatchObject({ states: ['RUNNING', 'RESUMING', 'RUNNING'], guestSha256: sampleSha256 });
    });

    it('of more memory than there is leaves no file', async () => {
      refused(
        await runCli(['save', 'sim:qat,size=1T', file]),
        /cannot get 1099511627776 bytes of memory \[ERR_DEVICE, ENOMEM\]/,
      );
      expect(files()).toEqual([]);
    });

    it('of a lower version refuses the state by itself', async () => {
      await saved('sim:qat,version=2');
      refused(await runCli(['restore', 'sim:qat', file]), /incompatible device \[ERR_DEVICE, EINVAL\]/);
      expect((await runCli(['restore', 'sim:qat,version=3', file])).exit).toEqual(OK);
    });

    it.each(
      inShort(
        ['read@1:EIO', 'STOP_COPY@1:EBUSY', 'PRE_COPY@1:ENOMEM!', 'read@2:EIO!', 'RUNNING@1:EIO', 'STOP@1:EIO'],
        (_, n) => n % 2 === 1,
      ),
    )('with fault=%s leaves no file', async (fault) => {
      const run = await runCli(['save', `sim:qat,fault=${fault}`, file]);
      const [step = '', errno = ''] = fault.split(/@\d+:|!/);
      refused(run, new RegExp(`^vfio-shim: simulated fault: ${step} number .* \\[ERR_DEVICE, ${errno}\\]\n$`));
      expect(files()).toEqual([]);
    });

    it.each(inShort(['write@1:EIO', 'RESUMING@1:EBUSY', 'write@2:ENOMEM!', 'RUNNING@1:EIO!'], (_, n) => n % 2 === 0))(
      'with fault=%s takes no state',
      async (fault) => {
        await saved('sim:qat,size=3M');
        const run = await runCli(['restore', `sim:qat,size=3M,fault=${fault}`, file, '-v']);
        expect(run).toMatchObject({ exit: FAILED, stdout: '' });
        expect(run.stderr).toMatch(/sim:qat,\S+: reset/); // the last that is done to it
        expect(run.stderr).toMatch(/\nvfio-shim: simulated fault: .*\[ERR_DEVICE, \w+\]\n/);
      },
    );
  });

  describe('a signal', () => {
    /** A device whose data is never there: the command waits. */
    const WAITS = 'sim:qat,size=4M,block=4000000000';

    it.each(inShort(['SIGINT', 'SIGTERM', 'SIGHUP'] as const, (_, n) => n === 1))(
      '%s ends save, and leaves nothing',
      async (signal) => {
        const child = cli(['save', WAITS, file, '-v']);
        await poll(
          () => (child.stderr.includes('PRE_COPY') ? true : undefined),
          10_000,
          () => child.stderr,
        );
        expect(files()).toHaveLength(1);
        process.kill(child.pid ?? -1, signal);
        const { exit, stderr, stdout } = await ended(child);
        expect({ exit, stdout, left: files() }).toEqual({ exit: { code: null, signal }, stdout: '', left: [] });
        expect(stderr).toMatch(
          /: RUNNING( \+\d+ms)?\n(.*\n)*vfio-shim: save: interrupted \[ERR_INTERRUPTED, EINTR\]\n/,
        );
      },
    );

    it('SIGINT ends restore, and resets the device', async () => {
      await saved('sim:qat,size=4M');
      const child = cli(['restore', WAITS, file, '-v']);
      await poll(
        () => (child.stderr.includes('RESUMING') ? true : undefined),
        10_000,
        () => child.stderr,
      );
      process.kill(child.pid ?? -1, 'SIGINT');
      const { exit, stderr } = await ended(child);
      expect(exit).toEqual({ code: null, signal: 'SIGINT' });
      expect(stderr).toMatch(/: reset( \+\d+ms)?\n(.*\n)*vfio-shim: restore: interrupted \[ERR_INTERRUPTED, EINTR\]\n/);
    });

    it('SIGKILL leaves at most the temporary file', async () => {
      const child = cli(['save', WAITS, file, '-v']);
      await poll(
        () => (child.stderr.includes('PRE_COPY') ? true : undefined),
        10_000,
        () => child.stderr,
      );
      process.kill(child.pid ?? -1, 'SIGKILL');
      await ended(child);
      expect(existsSync(file)).toBe(false);
      expect(files()).toEqual([expect.stringMatching(/^\.vfio-shim-[0-9a-f]{12}\.tmp$/)]);
    });
  });

  it.each([
    ['save'],
    ['save', 'sim:qat'],
    ['save', 'sim:qat', 'a', 'b'],
    ['save', 'sim:nothing', 'a'],
    ['save', 'sim:qat,size=x', 'a'],
    ['save', 'qat', 'a'],
    ['save', 'vfio:/dev/vfio/26:', 'a'],
    ['save', 'vfio:26:0000:01:00.0', 'a'],
    ['save', 'vfio:/dev/vfio/devices/', 'a'],
    ['restore', 'vfio-other:/tmp/x', 'a'],
    ['restore', '', 'a'],
    ['restore', 'sim:qat', 'a', '--wrong'],
    ['save', 'sim:qat', '-'],
    ['save', 'sim:qat', '-', '--force'],
    ['save', 'sim:qat', ''],
    ['restore', 'sim:qat', '-'],
    ['restore', 'sim:qat', ''],
    ['save', 'sim:qat,size=1K,size=2K', 'a'],
    ['probe'],
    ['probe', 'sim:'],
  ])('%s %s %s is a wrong command line', async (...args) => {
    const run = await runCli(args);
    expect(run).toMatchObject({ exit: USAGE, stdout: '' });
    expect(run.stderr).toMatch(/^vfio-shim: .*\n$/);
    expect(files()).toEqual([]);
  });
});

/** Adds one to a byte. */
function change(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = ((bytes[at] ?? 0) + 1) & 0xff;
  writeFileSync(path, bytes);
}

function contentOf(path: string): { header: StateHeader; buffers: Uint8Array[] } {
  using file = new OpenFile(path);
  const reader = new StateReader(file);
  return { header: reader.header, buffers: Array.from(reader.buffers(2 ** 20), (buffer) => buffer.slice()) };
}
