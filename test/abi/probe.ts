import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { executableDirectory } from '../support/compiler.ts';

/** An integer constant expression of C, under the name by which a test knows it. */
export interface Question {
  readonly name: string;
  readonly expression: string;
}

export interface Answers {
  readonly values: ReadonlyMap<string, bigint>;
  /** Names whose expression does not compile: the headers lack it. */
  readonly missing: readonly string[];
}

const CC = process.env['CC'] ?? 'gcc';

/** The version of the kernel headers the compiler sees, as `LINUX_VERSION_CODE`; `undefined` without compiler or headers. */
export function headersVersion(): number | undefined {
  const { stdout } = spawnSync(CC, ['-E', '-dM', '-include', 'linux/version.h', '-x', 'c', '/dev/null'], {
    encoding: 'utf8',
  });
  const code = /^#define LINUX_VERSION_CODE (\d+)$/m.exec(stdout ?? '')?.[1];
  return code === undefined ? undefined : Number(code);
}

/**
 * The directory of an architecture's own headers: none needed for this machine's; for another's that of Debian's
 * linux-libc-dev-ARCH-cross, or `VFIO_SHIM_CROSS_INCLUDE`.
 */
export function headersOf(arch: 'x64' | 'arm64'): { readonly include: readonly string[] } | undefined {
  if (arch === process.arch) return { include: [] };
  const root =
    process.env['VFIO_SHIM_CROSS_INCLUDE'] ?? `/usr/${arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu/include`;
  return existsSync(join(root, 'asm/ptrace.h')) ? { include: [root] } : undefined;
}

/**
 * Asks the compiler. Each question is a function on a line of its own, so that an expression that the headers cannot
 * satisfy spoils only its line: such lines are dropped in a first pass, and the rest is compiled and run.
 */
export function probe(
  headers: readonly string[],
  questions: readonly Question[],
  options: { readonly include?: readonly string[]; readonly prelude?: string } = {},
): Answers {
  const prelude = [options.prelude ?? '', '#include <stdio.h>', ...headers.map((header) => `#include <${header}>`)];
  const source = (asked: readonly Question[]): string =>
    [
      ...prelude.join('\n').split('\n'),
      ...asked.map(({ expression }, i) => `static long long q${i}(void) { return (long long)(${expression}); }`),
      'int main(void) {',
      ...asked.map((_, i) => `  printf("%lld\\n", q${i}());`),
      '  return 0;',
      '}',
    ].join('\n');
  const firstLine = prelude.join('\n').split('\n').length + 1;
  const directory = mkdtempSync(join(executableDirectory(), 'probe-'));
  const compile = (asked: readonly Question[], ...flags: string[]): { status: number | null; stderr: string } => {
    writeFileSync(join(directory, 'probe.c'), source(asked));
    const include = (options.include ?? []).flatMap((path) => ['-I', path]);
    return spawnSync(CC, ['-w', '-fmax-errors=0', ...include, ...flags, 'probe.c'], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
    });
  };

  try {
    const { stderr } = compile(questions, '-fsyntax-only');
    const bad = new Set(
      [...stderr.matchAll(/^probe\.c:(\d+):\d+: error:/gm)].map((match) => Number(match[1]) - firstLine),
    );
    const asked = questions.filter((_, i) => !bad.has(i));
    const built = compile(asked, '-o', 'probe');
    if (built.status !== 0) throw new Error(`${CC} probe.c: exit ${built.status}\n${built.stderr}`);
    const lines = execFileSync(join(directory, 'probe'), { encoding: 'utf8' }).trim().split('\n');
    return {
      values: new Map(asked.map(({ name }, i) => [name, BigInt(lines[i] ?? '')])),
      missing: questions.filter((_, i) => bad.has(i)).map(({ name }) => name),
    };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
