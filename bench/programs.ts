import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const timeout = 180_000;

/** One object printed by a program of bench/c. */
export type Output = Readonly<Record<string, unknown>>;

function succeeded(what: string, result: SpawnSyncReturns<string>): void {
  if (result.error) throw new Error(`${what}: ${result.error.message}`);
  if (result.status === 0) return;
  const lines = (result.stderr ?? '').trim().split('\n');
  throw new Error(`${what}: exit ${result.status ?? result.signal}: ${lines.at(-1) || 'nothing on stderr'}`);
}

function buildDirectory(): string {
  const modules = join(root, 'node_modules');
  try {
    accessSync(modules, constants.W_OK);
    return join(modules, '.cache', 'vfio-shim-bench');
  } catch {
    return join(tmpdir(), `vfio-shim-bench-${process.getuid?.()}`);
  }
}

/** Compiles `bench/c/NAME.c`, with more options of gcc's; gives the program's path. */
export function compile(name: string, more: readonly string[] = []): string {
  const directory = buildDirectory();
  mkdirSync(directory, { recursive: true });
  const program = join(directory, name);
  const source = join(root, 'bench', 'c', `${name}.c`);
  const options = ['-O2', '-std=gnu11', '-Wall', '-Wextra', ...more, '-o', program, source];
  succeeded(`gcc ${name}.c`, spawnSync('gcc', options, { encoding: 'utf8', timeout }));
  return program;
}

/** Runs COMMAND to its end and discards what it prints; gives the milliseconds it took. */
export function time(command: readonly string[]): number {
  const [file = '', ...args] = command;
  const start = performance.now();
  const result = spawnSync(file, args, {
    encoding: 'utf8',
    stdio: 'ignore', // a pipe would wait for the supervisor too, which ends after the command
    timeout,
    killSignal: 'SIGKILL',
  });
  const elapsed = performance.now() - start;
  succeeded(basename(file), result);
  return elapsed;
}

/** Runs COMMAND and gives the object that the bench program `name` printed, whatever others printed around it. */
export function output(name: string, command: readonly string[]): Output {
  const [file = '', ...args] = command;
  const result = spawnSync(file, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout,
    killSignal: 'SIGKILL',
  });
  succeeded(name, result);
  const line = result.stdout.split('\n').find((text) => text.startsWith(`{"bench":"${name}"`));
  if (line === undefined) throw new Error(`${name}: printed no result`);
  return JSON.parse(line) as Output;
}

export function numberOf(from: Output, key: string): number {
  const value = from[key];
  if (typeof value !== 'number') throw new Error(`${String(from['bench'])}: no number ${key}`);
  return value;
}

export function numbersOf(from: Output, key: string): number[] {
  const value = from[key];
  if (!Array.isArray(value)) throw new Error(`${String(from['bench'])}: no list ${key}`);
  return value.map(Number);
}

/** The command line of `vfio-shim run OPTIONS -- COMMAND`. */
export function interposed(cli: string, options: readonly string[], command: readonly string[]): string[] {
  if (!existsSync(cli)) throw new Error(`no interposer: ${cli} is missing: npm run build`);
  return [process.execPath, cli, 'run', ...options, '--', ...command];
}

export const defaultCli = join(root, 'dist', 'cli', 'main.js');
