import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import type { SyscallName } from '../../../src/abi/syscalls.ts';
import { arch } from '../../../src/sys/libc.ts';
import { compiled, describeWithCompiler } from '../../support/compiler.ts';
import { because, lacksForRun } from '../../support/host.ts';
import { lacks32Bit } from '../../support/host-programs.ts';

const host = fileURLToPath(new URL('../../support/host.ts', import.meta.url));

/** What host.ts says where system calls are refused, as in a container. */
function lackingWithout(...names: SyscallName[]): string {
  const code = `import { because, lacksForRun } from ${JSON.stringify(host)}; process.stdout.write(String(lacksForRun()));`;
  const node = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', code];
  const numbers = names.map((name) => String(arch.syscalls[name]));
  const { stdout, stderr } = spawnSync(compiled('without'), [...numbers, '--', ...node], { encoding: 'utf8' });
  return stdout === '' ? stderr : stdout;
}

const own = lacksForRun();
const CALLS = ['pidfd_getfd', 'process_vm_readv', 'ptrace'] as const;

describeWithCompiler('what a host lacks', () => {
  it('is told for 32-bit system calls, where they kill', () => {
    expect(lacks32Bit([compiled('without'), 'i386', '--'])).toMatch(/^no 32-bit system calls: (SIG|exit code)/);
  });

  // where this host itself lacks something, that comes first
  it.skipIf(own !== undefined).each(CALLS)(`is told for %s${because(own)}`, (name) => {
    expect(lackingWithout(name)).toBe(`${name}: EPERM`);
  });

  it('is nothing else', () => {
    expect(lackingWithout('pidfd_getfd', 'ptrace')).toBe('pidfd_getfd: EPERM');
    for (const name of ['kcmp', 'pwritev2'] as const) expect(lackingWithout(name)).toBe(String(own));
  });
});
