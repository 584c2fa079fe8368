import {
  chmodSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Child } from '../../src/vmm/child.ts';
import { CLI, requireCli } from '../../tools/vmm/cli.ts';
import { wrappers } from '../docs/scripts.ts';
import { ended, FAILED, OK, runCli, USAGE, type Ended } from '../support/cli-run.ts';

beforeAll(requireCli);

let directory = '';
/** What stands for QEMU: tells its process, how many seccomp filters it is under, and its arguments. */
let emulator = '';

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "it's "));
  emulator = join(directory, 'qemu');
  writeFileSync(
    emulator,
    '#!/bin/sh\necho $$\nwhile read -r key n; do [ "$key" = Seccomp_filters: ] && echo "$n"; done < /proc/$$/status\nprintf "%s\\n" "$@"\n',
  );
  chmodSync(emulator, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true }));

const make = (...args: string[]): Promise<Ended> => runCli(['libvirt-wrapper', '--emulator', emulator, ...args]);

/** Starts the emulator by a wrapper, or itself: its process as it was started, and as it ended. */
async function emulate(
  program: string,
  args: readonly string[],
): Promise<{ same: boolean; filters: number; args: string[] }> {
  const child = new Child([program, ...args]);
  const { exit, stdout, stderr } = await ended(child);
  expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
  const [pid, filters, ...seen] = stdout.trimEnd().split('\n');
  return { same: Number(pid) === child.pid, filters: Number(filters), args: seen };
}

async function installed(...options: string[]): Promise<string> {
  const path = join(directory, 'wrapper');
  expect(await make('--install', path, ...options)).toEqual({ exit: OK, stdout: '', stderr: '' });
  return path;
}

describe('the script', () => {
  it('is what is printed and what is installed, for anybody to execute', async () => {
    const options = ['--present', 'v1', '--p2p', 'off'];
    const { stdout, stderr, exit } = await make(...options);
    expect({ exit, stderr }).toEqual({ exit: OK, stderr: '' });
    const path = await installed(...options);
    expect(readFileSync(path, 'utf8')).toBe(stdout);
    expect(lstatSync(path).mode & 0o777).toBe(0o755);
    expect(readdirSync(directory).toSorted()).toEqual(['qemu', 'wrapper']);
    expect(stdout).toContain(`${CLI} run --present v1 --p2p off -- "$emulator" "$@"\n`);
  });

  it('is what docs/libvirt.md shows, but for where programs are', async () => {
    const { stdout } = await make('--present', 'v1');
    const shown = wrappers.map(({ path, code }) => ({
      path,
      code: code.replace(/ \S+\/main\.js run /, ` ${CLI} run `),
    }));
    const here = stdout
      .replace(/^emulator=.*$/m, 'emulator=/usr/bin/qemu-system-x86_64')
      .replace(`exec ${process.execPath} `, 'exec /usr/bin/node ');
    expect(shown).toEqual([{ path: 'docs/libvirt.md', code: here }]);
  });

  it('becomes the emulator under run, with its arguments as they are', async () => {
    const args = ['-name', "it's $HOME -h", '', '-machine', 'pc,accel=tcg', '*', '-S'];
    const bare = await emulate(emulator, args);
    expect(await emulate(await installed(), args)).toEqual({ ...bare, same: true, filters: bare.filters + 1 });
  });

  it.each([
    [['-S', '-no-user-config', '-nodefaults', '-nographic', '-machine', 'none,accel=kvm:tcg', '-daemonize']],
    [['-M', 'none', '-qmp', 'stdio']],
    [['-version']],
    [['--help']],
  ])('is the emulator alone for %j', async (args) => {
    const bare = await emulate(emulator, args);
    expect(await emulate(await installed(), args)).toEqual({ ...bare, same: true });
  });

  it('has options with their values, however often they are given, and quotes what a shell would read', async () => {
    const { stdout } = await make(
      '--device',
      'qat,size=1M',
      '--device',
      'hisi',
      '--sysfs',
      '/run/a b',
      '-v',
      '--data-size',
      '4M',
    );
    expect(stdout).toContain(` run --device qat,size=1M --device hisi --sysfs '/run/a b' --data-size 4M --verbose -- `);
    expect(stdout).toContain(`\nemulator='${emulator.replace("'", String.raw`'\''`)}'\n`);
  });
});

describe('--install', () => {
  it('fails in one line where no file can be', async () => {
    symlinkSync('loop', join(directory, 'loop'));
    const path = join(directory, 'loop', 'wrapper');
    const stderr = `vfio-shim: ${path}: too many symbolic links encountered [ERR_FILE, ELOOP]\n`;
    expect(await make('--install', path)).toEqual({ exit: FAILED, stdout: '', stderr });
  });

  it('replaces what it has written', async () => {
    const path = await installed('--present', 'v1');
    await installed('--present', 'v2');
    expect(readFileSync(path, 'utf8')).toContain(' run --present v2 -- ');
  });

  it.each<[what: string, put: (path: string) => void]>([
    ['a script of somebody else', (path) => writeFileSync(path, '#!/bin/sh\nexec true\n')],
    ['a link, though it leads to one of its own', (path) => symlinkSync('wrapper', path)],
  ])('leaves %s', async (_, put) => {
    await installed();
    const path = join(directory, 'other');
    put(path);
    const before = readFileSync(path, 'utf8');
    const { exit, stderr } = await make('--install', path, '--present', 'v2');
    expect(exit).toEqual(FAILED);
    expect(stderr).toBe(`vfio-shim: ${path}: is not what libvirt-wrapper has written, and stays [ERR_FILE]\n`);
    expect(readFileSync(path, 'utf8')).toBe(before);
    expect(readdirSync(directory).toSorted()).toEqual(['other', 'qemu', 'wrapper']);
  });

  it('says that a directory is not there', async () => {
    const path = join(directory, 'none', 'wrapper');
    const { exit, stderr } = await make('--install', path);
    expect(exit).toEqual(FAILED);
    expect(stderr).toBe(`vfio-shim: ${path}: no such file or directory [ERR_FILE, ENOENT]\n`);
  });
});

describe('is not made, if what libvirt starts would fail:', () => {
  it.each([
    [['--data-size', '3'], '--data-size 3: is not a multiple of 4096 up to 1G'],
    [['--device', 'qat,size=x', '--sysfs', '/run/x'], 'device "qat,size=x": size=x'],
    [['--present', 'v3'], 'libvirt-wrapper: --present v3: is none of v1, v2,'],
    [['--device', 'qat'], '--device: give --sysfs too,'],
    [['--device', 'qat', '--sysfs', 'run'], '--sysfs run: is not an absolute path'],
    [['--log', 'log'], '--log log: is not an absolute path'],
    [['--trace', 'a/trace'], '--trace a/trace: is not an absolute path'],
    [['--install', 'wrapper'], '--install wrapper: is not an absolute path'],
    [['--emulator', 'qemu'], '--emulator qemu: is not an absolute path'],
    [['--emulator', '/no/qemu'], '--emulator /no/qemu: cannot be executed'],
  ])('%j', async (args, message) => {
    const { exit, stdout, stderr } = await make(...args);
    expect({ exit, stdout }).toEqual({ exit: USAGE, stdout: '' });
    expect(stderr.slice(0, 11 + message.length)).toBe(`vfio-shim: ${message}`);
    expect(stderr).toMatch(/^[^\n]+\n$/);
  });

  it('["--json"]', async () => {
    const { exit, stderr } = await make('--json');
    expect(exit).toEqual(USAGE);
    expect(stderr).toContain('--json: QEMU would be a child of the emulator that libvirt starts');
  });
});
