import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { FAILED, runCli, USAGE } from '../support/cli-run.ts';

beforeAll(requireCli);

const HELP = 'shows how it is used)\n';

describe('a wrong command line', () => {
  it.each<[args: string[], message: string]>([
    [['nothing'], `unknown command 'nothing' (vfio-shim --help ${HELP}`],
    [['constructor'], `unknown command 'constructor' (vfio-shim --help ${HELP}`],
    [['--json'], `unknown option '--json' (vfio-shim --help ${HELP}`],
    [['save', 'sim:qat'], `save: missing argument 'file' (vfio-shim save --help ${HELP}`],
    [['restore', 'a', 'b', 'c'], `restore: too many arguments: 2 expected, 3 given (vfio-shim restore --help ${HELP}`],
    [['probe'], `probe: missing argument 'device' (vfio-shim probe --help ${HELP}`],
    [['probe', 'a', '--jsno'], `probe: unknown option '--jsno', did you mean --json? (vfio-shim probe --help ${HELP}`],
    [['fsm', '--flags', '9'], `fsm: --flags 9: is none of 1, 3, 5, 7 (vfio-shim fsm --help ${HELP}`],
    [['fsm', '--flags', '1\n2'], String.raw`fsm: --flags 1\n2: is none of 1, 3, 5, 7 (vfio-shim fsm --help ` + HELP],
    [['demo', 'x'], `demo: too many arguments: 0 expected, 1 given (vfio-shim demo --help ${HELP}`],
    [['run'], `run: missing argument 'command' (vfio-shim run --help ${HELP}`],
    [['run', '--trace'], `run: option '--trace <file>' argument missing (vfio-shim run --help ${HELP}`],
    [
      ['run', '--present', 'v3', '--', 'true'],
      `run: --present v3: is none of v1, v2, auto, draft-2018, draft-2019 (vfio-shim run --help ${HELP}`,
    ],
    [
      ['save', 'sim:qat', '-'],
      'save: file "-": a state is not written to stdout, as its header comes last; give a path ',
    ],
    [['restore', 'sim:qat', '-'], 'restore: file "-": a state is not read from stdin, as all of it is checked before '],
    [['save', 'sim:qat,size=-1', 'a'], 'device "qat,size=-1": size=-1 is not a whole number from 0 on'],
    [['fsm', 'walking', 'stop'], 'fsm: device state: walking is none of ERROR, STOP,'],
  ])('%j is told in one line', async (args, message) => {
    const { exit, stdout, stderr } = await runCli(args);
    expect(stderr).toMatch(/^[^\n]+\n$/);
    expect(stderr.slice(0, 11 + message.length)).toBe(`vfio-shim: ${message}`);
    expect({ exit, stdout }).toEqual({ exit: USAGE, stdout: '' });
  });

  it('without anything is the help', async () => {
    expect(await runCli([])).toMatchObject({
      exit: USAGE,
      stdout: '',
      stderr: expect.stringMatching(/^Usage: /) as string,
    });
  });
});

describe('a socket that cannot be made', () => {
  it.each([
    ['run', ['--status'], ['--device', 'qat', '--', 'true']],
    ['serve', ['--device', 'qat', '--listen'], []],
  ])('by %s is told in one line, with its path', async (command, before, after) => {
    const directory = mkdtempSync(join(tmpdir(), 'shim-socket-'));
    onTestFinished(() => {
      rmSync(directory, { recursive: true });
    });
    const loop = join(directory, 'loop');
    symlinkSync(loop, loop);
    const path = join(loop, 'x.sock');
    const { exit, stdout, stderr } = await runCli([command, ...before, path, ...after]);
    expect(stderr.split('\n').filter((line) => !/^(vfio-shim: sysfsdev directories are in .*)?$/.test(line))).toEqual([
      `vfio-shim: ${path}: too many symbolic links encountered [ERR_FILE, ELOOP]`,
    ]);
    expect({ exit, stdout }).toEqual({ exit: FAILED, stdout: '' });
  });
});

describe('a failure with --json', () => {
  const NOT_FOUND = { code: 127, signal: null };

  it.each([
    [['save', '--json'], USAGE, 'ERR_ARGUMENT', null, "save: missing argument 'device' "],
    [
      ['restore', 'sim:qat', 'a', '--wrong', '--json'],
      USAGE,
      'ERR_ARGUMENT',
      null,
      "restore: unknown option '--wrong' ",
    ],
    [['restore', '--json', 'sim:qat', '/no/such/file'], FAILED, 'ERR_FILE', 'ENOENT', '/no/such/file: no such file'],
    [
      ['save', 'sim:qat,size=x', 'a', '--json'],
      USAGE,
      'ERR_SPEC',
      'EINVAL',
      'device "qat,size=x": size=x is not a whole',
    ],
    [['probe', 'vfio:/no/group:a', '--json'], FAILED, 'ERR_DEVICE', 'ENOENT', '/no/group: does not exist'],
    [
      ['fsm', 'stop-copy', 'pre-copy', '--json'],
      FAILED,
      'ERR_TRANSITION',
      'EINVAL',
      'transition STOP_COPY to PRE_COPY:',
    ],
    [['fsm', '--flags', '2', '--json'], USAGE, 'ERR_ARGUMENT', null, 'fsm: --flags 2: is none of'],
    [['demo', '--json', 'x'], USAGE, 'ERR_ARGUMENT', null, 'demo: too many arguments: 0 expected, 1 given'],
    [['run', '--json'], USAGE, 'ERR_ARGUMENT', null, "run: missing argument 'command'"],
    [
      ['run', '--data-size', '1', '--json', '--', 'true'],
      USAGE,
      'ERR_ARGUMENT',
      null,
      '--data-size 1: is not a multiple',
    ],
    [['run', '--json', '--device', 'qatt', '--', 'true'], USAGE, 'ERR_SPEC', 'EINVAL', 'device "qatt": no driver'],
    [
      ['run', '--json', '--', 'no-such-command'],
      NOT_FOUND,
      'ERR_COMMAND',
      'ENOENT',
      'no-such-command: command not found',
    ],
    [['run', '--json', 'no-such-command'], NOT_FOUND, 'ERR_COMMAND', 'ENOENT', 'no-such-command: command not found'],
  ])('%j is one line of JSON, beside the one for people', async (args, exit, code, errno, message) => {
    const run = await runCli(args);
    expect(run.exit).toEqual(exit);
    expect(run.stdout).toMatch(/^[^\n]+\n$/);
    const { error } = JSON.parse(run.stdout) as { error: { message: string } };
    expect(error).toEqual({ code, errno, message: expect.stringContaining(message) as string });
    expect(run.stderr).toMatch(/^[^\n]+\n$/);
    expect(run.stderr.startsWith(`vfio-shim: ${error.message}`)).toBe(true);
  });

  it.each([
    ['run', '--', 'no-such-command', '--json'],
    ['run', 'no-such-command', '--json'],
    ['run', '--trace', '--json', '--', 'no-such-command'],
    ['save', 'sim:qat', '/no/such/directory/state', '--', '--json'],
  ])('is for people alone where the option is not ours: %s %s %s %s', async (...args) => {
    expect(await runCli(args)).toMatchObject({
      stdout: '',
      stderr: expect.stringMatching(/^vfio-shim: .*\n$/) as string,
    });
  });
});
