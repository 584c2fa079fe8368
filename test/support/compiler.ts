import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { because, lacksForRun } from './host.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const CC = process.env['CC'] ?? 'gcc';
const FLAGS = ['-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread'];
/** What the programs may include of each other's, besides their own folder. */
const SHARED = join(root, 'bench/c');

/** The tests' C programs are in this folder. */
export const PROGRAMS: string = join(root, 'test/interpose/c');

/** Why C programs cannot be compiled here; `undefined` if they can. */
export function missingCompiler(): string | undefined {
  const { status, error } = spawnSync(CC, ['--version'], { encoding: 'utf8' });
  if (error !== undefined) return `no ${CC}: ${error.message}`;
  return status === 0 ? undefined : `${CC} --version: exit code ${status}`;
}

const ci = !['', 'false', undefined].includes(process.env['CI']);

/**
 * A group of tests that run C programs under the compiled command. Without a compiler it is skipped on a developer's
 * machine, and fails if CI is set.
 */
export function describeWithCompiler(title: string, body: () => void): void {
  describeUnless(undefined, title, body);
}

/** As describeWithCompiler(), and if the host lacks what serving a target takes, the group is skipped everywhere. */
export function describeRunsWithCompiler(title: string, body: () => void): void {
  describeUnless(lacksForRun(), title, body);
}

function describeUnless(lacking: string | undefined, title: string, body: () => void): void {
  const missing = missingCompiler();
  const isSkipped = lacking !== undefined || (missing !== undefined && !ci);
  describe.skipIf(isSkipped)(`${title}${because(lacking ?? missing)}`, () => {
    beforeAll(() => {
      if (missing !== undefined) throw new Error(`${missing}; set CC to a C compiler`);
      requireCli();
    });
    body();
  });
}

/** Where files can be executed, which a directory for temporary files does not promise: it may be mounted noexec. */
export function executableDirectory(): string {
  const directory = join(root, '.cache/test-programs');
  mkdirSync(directory, { recursive: true });
  return directory;
}

/** Compiles `test/interpose/c/NAME.c` if that has not been done, and returns the program's path. */
export function compiled(name: string): string {
  return compile(name, FLAGS);
}

/** The same, of a library to be preloaded. */
export function compiledLibrary(name: string): string {
  return compile(name, [...FLAGS, '-shared', '-fPIC']);
}

/** The same, of a program with headers and libraries of its own: `more` comes behind the source. */
export function compiledWith(name: string, more: readonly string[]): string {
  return compile(name, FLAGS, more);
}

function compile(name: string, flags: readonly string[], more: readonly string[] = []): string {
  const source = join(PROGRAMS, `${name}.c`);
  const inputs = [source, ...headersIn(PROGRAMS), ...headersIn(SHARED)];
  const hash = createHash('sha256').update([CC, ...flags, ...more].join(' '));
  for (const path of inputs) hash.update(basename(path)).update(readFileSync(path));
  const program = join(executableDirectory(), `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(program)) return program;
  const fresh = `${program}.${process.pid}`; // another test file may be compiling it too
  const args = [...flags, '-I', SHARED, '-o', fresh, source, ...more];
  const { status, stderr } = spawnSync(CC, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${CC} ${source}: exit code ${status}\n${stderr}`);
  renameSync(fresh, program);
  return program;
}

function headersIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.h'))
    .map((name) => join(directory, name));
}
