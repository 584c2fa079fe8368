import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, OK, runCli, USAGE, type Ended } from '../support/cli-run.ts';
import { lacksForRun } from '../support/host.ts';
import { inShort } from '../support/runs.ts';
import { patient } from '../support/patience.ts';

const BROKEN = { code: null, signal: 'SIGPIPE' };
const FULL = 'vfio-shim: stdout: no space left on device [ERR_FILE, ENOSPC]\n';

/** Many processes one after the other, on a machine that may be busy. */
const MS = patient(180_000);

describe('a stdout that takes no more', { timeout: MS }, () => {
  let directory = '';
  beforeAll(() => {
    requireCli();
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-output-'));
    expect(spawnSync('mkfifo', [join(directory, 'fifo')]).status).toBe(0);
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const states = ['state', 'again'].map((name) => ({ file: () => join(directory, name) }));

  /** Runs the command with redirections, as a shell has them; FIFO is a pipe that nobody reads. */
  async function redirected(args: readonly string[], how: string): Promise<Ended> {
    const pipe = 'exec 8<>"$FIFO" 9>"$FIFO" 8<&-';
    const env = { FIFO: join(directory, 'fifo'), TMPDIR: directory };
    const run = await runCli(args, env, ['sh', '-c', `${pipe}; exec "$@" ${how} 9>&-`, 'sh']);
    for (const { file } of states) rmSync(file(), { force: true });
    return run;
  }

  const [state] = states;
  const commands: (() => string[])[] = [
    () => ['--help'],
    () => ['--version'],
    () => ['save', '--help'],
    () => ['fsm'],
    () => ['fsm', 'running', 'stop', '--json'],
    () => ['probe', 'sim:qat'],
    () => ['probe', 'sim:qat', '--json'],
    () => ['save', 'sim:qat', state?.file() ?? ''],
    () => ['save', 'sim:qat', state?.file() ?? '', '--json'],
  ];

  it.each(
    inShort(
      commands.map((command) => [command().slice(0, 2).join(' '), command] as const),
      (_, n) => n % 2 === 0,
    ),
  )('ends %s as SIGPIPE does, or with one line', async (_, command) => {
    expect(await redirected(command(), '>&9')).toEqual({ exit: BROKEN, stdout: '', stderr: '' });
    expect(await redirected(command(), '>/dev/full')).toEqual({ exit: FAILED, stdout: '', stderr: FULL });
    expect(await redirected(command(), '>&-')).toMatchObject({ exit: OK, stderr: '' });
  });

  it('is what a shell calls 141', () => {
    const script = 'exec 8<>"$1" 9>"$1" 8<&-; shift; "$@" >&9; echo $?';
    const { stdout, stderr } = spawnSync(
      'sh',
      ['-c', script, 'sh', join(directory, 'fifo'), process.execPath, CLI, 'fsm'],
      { encoding: 'utf8' },
    );
    expect(stdout).toBe('141\n');
    expect(stderr).not.toContain('vfio-shim');
  });

  it('loses nothing without a word: a file that has room for a part', async () => {
    const file = join(directory, 'part');
    const limited = ['sh', '-c', 'ulimit -f 1; exec "$@" > "$PART"', 'sh'];
    const run = await runCli(['fsm'], { PART: file }, limited);
    expect(run).toMatchObject({ exit: FAILED, stderr: 'vfio-shim: stdout: file too large [ERR_FILE, EFBIG]\n' });
    expect(readFileSync(file, 'utf8')).toMatch(/^Next hop/);
    rmSync(file);
  });

  it('leaves the state that was saved', async () => {
    const file = join(directory, 'state');
    const prefix = ['sh', '-c', 'exec "$@" >/dev/full', 'sh'];
    expect((await runCli(['save', 'sim:qat', file], {}, prefix)).exit).toEqual(FAILED);
    expect((await runCli(['restore', 'sim:qat', file])).exit).toEqual(OK);
    rmSync(file);
  });

  it('keeps the status of a failure', async () => {
    for (const how of ['>&9', '>/dev/full', '>&-']) {
      const run = await redirected(['probe', 'qat', '--json'], how);
      expect(run.exit).toEqual(USAGE);
      expect(run.stderr).toMatch(/^vfio-shim: device "qat": [^\n]*\n$/);
    }
  });

  const lacking = lacksForRun();
  describe.skipIf(lacking !== undefined)(`under run${lacking === undefined ? '' : ` (${lacking})`}`, () => {
    const run = (status: number): string[] => ['run', '--device', 'qat', '--json', '--', 'sh', '-c', `exit ${status}`];

    it.each([0, 7])('leaves COMMAND its status %i with --json', async (status) => {
      const exit = { code: status, signal: null };
      expect((await redirected(run(status), '>&9')).exit).toEqual(exit);
      const full = await redirected(run(status), '>/dev/full');
      expect(full.exit).toEqual(exit);
      expect(full.stderr).toMatch(/^vfio-shim: sysfsdev .*\nvfio-shim: stdout: no space left .*\n$/);
      expect((await redirected(run(status), '>&-')).exit).toEqual(exit);
    });

    it('leaves COMMAND its signal with --json', async () => {
      const killed = ['run', '--device', 'qat', '--json', '--', 'sh', '-c', 'kill -9 $$'];
      expect((await redirected(killed, '>/dev/full')).exit).toEqual({ code: null, signal: 'SIGKILL' });
    });

    it('ends the demo early, which leaves nothing behind', async () => {
      expect(await redirected(['demo', '--no-qemu'], '>&9')).toEqual({ exit: BROKEN, stdout: '', stderr: '' });
      expect(await redirected(['demo', '--no-qemu'], '>/dev/full')).toEqual({ exit: FAILED, stdout: '', stderr: FULL });
      expect(readdirSync(directory)).toEqual(['fifo']);
    });
  });
});

describe('a stderr that is lost', { timeout: MS }, () => {
  beforeAll(requireCli);

  it.each(inShort(['2>&-', '2>/dev/full', '2>&9'], (_, n) => n === 1))('changes nothing (%s)', async (how) => {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-output-'));
    try {
      const fifo = join(directory, 'fifo');
      spawnSync('mkfifo', [fifo]);
      const prefix = ['sh', '-c', `exec 8<>"$FIFO" 9>"$FIFO" 8<&-; exec "$@" ${how} 9>&-`, 'sh'];
      const run = async (...args: string[]): Promise<Ended> => runCli(args, { FIFO: fifo, TMPDIR: directory }, prefix);
      expect(await run('probe', 'qat')).toMatchObject({ exit: USAGE, stdout: '' });
      expect(await run('probe')).toMatchObject({ exit: USAGE, stdout: '' });
      expect(await run()).toMatchObject({ exit: USAGE, stdout: '' });
      expect(await run('fsm', 'running', 'stop')).toMatchObject({
        exit: OK,
        stdout: expect.stringMatching(/STOP\n$/) as string,
      });
      expect(await run('save', 'sim:qat', join(directory, 'state'), '-v')).toMatchObject({ exit: OK });
      expect(await run('restore', 'sim:hisi', join(directory, 'state'))).toMatchObject({ exit: FAILED, stdout: '' });
      expect(await run('run', '--', 'no-such-command')).toMatchObject({ exit: { code: 127, signal: null } });
      if (lacksForRun() !== undefined) return;
      const report = await run('run', '--device', 'qat', '--json', '--', 'sh', '-c', 'exit 3');
      expect(report).toMatchObject({
        exit: { code: 3, signal: null },
        stdout: expect.stringMatching(/^\{"name"/) as string,
      });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
