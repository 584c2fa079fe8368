import { randomBytes } from 'node:crypto';
import { accessSync, chmodSync, constants, linkSync, lstatSync, readFileSync, renameSync } from 'node:fs';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import type { Command } from 'commander';
import { ShimError } from '../error.ts';
import { onFile } from '../state-file/errors.ts';
import { print } from './output.ts';
import { addRunOptions, ordered, type RunOptions } from './run.ts';

interface WrapperOptions extends RunOptions {
  readonly emulator: string;
  readonly install?: string;
}

/** The second line of a script of ours, by which it is known that it may be replaced. */
const MARK = '# Written by vfio-shim libvirt-wrapper, which replaces it if it is run again with --install.';

const bad = (message: string): ShimError => new ShimError('ERR_ARGUMENT', message);

export function add(program: Command): void {
  const command = program
    .command('libvirt-wrapper')
    .description("print the script that a libvirt domain's <emulator> names, so that its QEMU is under run")
    .option('--emulator <path>', 'the QEMU that it starts', '/usr/bin/qemu-system-x86_64')
    .option('--install <path>', 'write it to a file that anybody may execute, in place of one that was written before');
  const own = command.options.length;
  addRunOptions(command).action((options: WrapperOptions) => {
    check(options);
    const text = scriptOf(options.emulator, runArguments(command, own));
    if (options.install === undefined) print(text);
    else install(options.install, text);
  });
}

/** What `run` would refuse, and what only libvirt would find out: it starts the emulator in another directory. */
function check(options: WrapperOptions): void {
  ordered(options);
  for (const name of ['json', 'check'] as const) {
    if (options[name] === true) throw bad(`--${name}: QEMU would be a child of the emulator that libvirt starts`);
  }
  if (options.device.length > 0 && options.sysfs === undefined) {
    throw bad('--device: give --sysfs too, as a domain names the device by the directory there');
  }
  for (const name of ['emulator', 'install', 'sysfs', 'log', 'record', 'trace', 'status'] as const) {
    const path = options[name];
    if (path !== undefined && path !== '-' && !isAbsolute(path))
      throw bad(`--${name} ${path}: is not an absolute path`);
  }
  try {
    accessSync(options.emulator, constants.X_OK);
  } catch (error) {
    throw new ShimError('ERR_ARGUMENT', `--emulator ${options.emulator}: cannot be executed`, { cause: error });
  }
}

/** The options that were given, less the first `own`, as `run` takes them. */
function runArguments(command: Command, own: number): string[] {
  return command.options
    .slice(own)
    .filter((option) => command.getOptionValueSource(option.attributeName()) === 'cli')
    .flatMap((option) => {
      const value = command.getOptionValue(option.attributeName()) as true | string | readonly string[];
      const { long = '' } = option;
      if (value === true) return [long];
      return typeof value === 'string' ? [long, value] : value.flatMap((each) => [long, each]);
    });
}

function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** What asks QEMU itself needs no bridge: libvirt's probing, and questions of version and use. */
function scriptOf(emulator: string, options: readonly string[]): string {
  const run = [process.execPath, join(import.meta.dirname, 'main.js'), 'run', ...options, '--'];
  return `#!/bin/sh
${MARK}
emulator=${quote(emulator)}

# libvirt learns from a QEMU without machine and devices what the emulator can. There is nothing to bridge for that one.
before=
for argument; do
  case $before in
    -machine | -M) case $argument in none | none,*) exec "$emulator" "$@" ;; esac ;;
  esac
  case $argument in
    -version | --version | -help | --help | -h) exec "$emulator" "$@" ;;
  esac
  before=$argument
done

exec ${run.map(quote).join(' ')} "$emulator" "$@"
`;
}

/** The file is there whole, or as it was. What somebody else has written stays. */
function install(path: string, text: string): void {
  const fresh = join(dirname(path), `.vfio-shim-${randomBytes(6).toString('hex')}`);
  onFile(path, () => {
    try {
      writeFileSync(fresh, text, { flag: 'wx', flush: true });
      chmodSync(fresh, 0o755);
      if (isOurs(path)) renameSync(fresh, path);
      else linkSync(fresh, path); // fails if another has come meanwhile
    } finally {
      rmSync(fresh, { force: true });
    }
  });
}

/** False if there is no such file. Throws `ERR_FILE` if it is another's. */
function isOurs(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return false;
  const ours = found.isFile() && readFileSync(path, 'utf8').split('\n')[1] === MARK;
  if (!ours) throw new ShimError('ERR_FILE', `${path}: is not what libvirt-wrapper has written, and stays`);
  return true;
}
