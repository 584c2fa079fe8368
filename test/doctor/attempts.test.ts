import { describe, expect, it } from 'vitest';
import { errnoNumber, type ErrnoName } from '../../src/abi/errno.ts';
import type { SyscallName } from '../../src/abi/syscalls.ts';
import { attempted, type Ended } from '../../src/doctor/attempted.ts';
import { Attempts, systemCalls, type AttemptCalls } from '../../src/doctor/attempts.ts';
import { judge } from '../../src/doctor/judge.ts';
import { ATTEMPTS, type AttemptName, type Outcome } from '../../src/doctor/outcome.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { failure } from '../support/errno.ts';

type Tried = Exclude<AttemptName, 'koffi'>;
const TRIED = ATTEMPTS.filter((name): name is Tried => name !== 'koffi');

const listener = (): OwnedFd => createSharedMemory('listener', 4096);

/** A kernel on which everything works, but for what is said: nothing is traced, and no filter installed. */
function kernel(refused: Partial<Record<SyscallName, ErrnoName>> = {}, more: Partial<AttemptCalls> = {}): AttemptCalls {
  return {
    ...systemCalls,
    trySyscall: (name, ...args) => {
      const errno = refused[name];
      if (errno !== undefined) return -errnoNumber(errno);
      return name === 'ptrace' ? 0 : systemCalls.trySyscall(name, ...args);
    },
    installFilter: listener,
    wakesOnThisCpu: () => true,
    ...more,
  };
}

function outcomes(calls: AttemptCalls): Outcome[] {
  const attempts = new Attempts(process.pid, calls);
  return TRIED.map((name) => attempts.try(name));
}

/** What fails, as doctor tells it. */
function complaints(calls: AttemptCalls): string[] {
  const bad = judge(outcomes(calls)).filter(({ level }) => level !== 'ok');
  return bad.map(({ level, what, remedy }) => `${level} ${what} — ${remedy}`);
}

const throws = (error: Error) => (): never => {
  throw error;
};

describe('Attempts', () => {
  it('make the calls that a supervisor makes', () => {
    expect(outcomes(kernel())).toEqual(TRIED.map((name) => ({ name })));
  });

  it.each<[SyscallName, ErrnoName, RegExp]>([
    ['pidfd_open', 'ENOSYS', /^fail pidfd_open: fails with ENOSYS — needs Linux 5\.3,/],
    ['pidfd_getfd', 'ENOSYS', /^fail pidfd_getfd: fails with ENOSYS — needs Linux 5\.6,/],
    ['pidfd_getfd', 'EPERM', /^fail pidfd_getfd: fails with EPERM — .*--cap-add SYS_PTRACE/],
    ['process_vm_readv', 'EPERM', /^fail process_vm_readv: fails with EPERM — .*a seccomp profile/],
    ['process_vm_writev', 'EPERM', /^fail process_vm_writev: fails with EPERM — /],
    ['ptrace', 'EPERM', /^warn ptrace of a child: fails with EPERM — .*migrates slowly/],
  ])('tell that %s fails with %s', (name, errno, expected) => {
    const all = complaints(kernel({ [name]: errno }));
    expect(all.filter((line) => expected.test(line))).toHaveLength(1);
    expect(all).toHaveLength(name === 'pidfd_open' ? 2 : 1); // no pidfd, no descriptor by it
  });

  it('tell why there is no shared memory', () => {
    const because = (errno: ErrnoName): string[] =>
      complaints(kernel({}, { createSharedMemory: throws(failure(errno)) }));
    expect(because('EFBIG')).toEqual([expect.stringMatching(/^fail shared memory: .*EFBIG — ulimit -f unlimited/)]);
    expect(because('EPERM')).toEqual([expect.stringMatching(/^fail shared memory: .*EPERM — what this runs in/)]);
  });

  it.each<[ErrnoName, RegExp]>([
    ['EBUSY', /^fail seccomp user notification, .*: injected EBUSY — there can be one listener/],
    ['EINVAL', /^fail seccomp user notification, .*: injected EINVAL — needs Linux 5\.19/],
    ['ENOSYS', /^fail seccomp user notification, .*: injected ENOSYS — needs CONFIG_SECCOMP_FILTER/],
  ])('tell that there is no listener (%s)', (errno, expected) => {
    expect(complaints(kernel({}, { installFilter: throws(failure(errno)) }))).toEqual([
      expect.stringMatching(expected),
      expect.stringMatching(/^warn seccomp: wakes .*: there is no listener to try it on — /),
    ]);
  });

  it('tell that a trapped call will take longer', () => {
    expect(complaints(kernel({}, { wakesOnThisCpu: () => false }))).toEqual([
      expect.stringMatching(/^warn seccomp: wakes .* is refused — .*Linux 6\.6/),
    ]);
  });

  it('do not take a fault of ours for an answer', () => {
    expect(() => outcomes(kernel({}, { installFilter: throws(new TypeError('ours')) }))).toThrow('ours');
  });
});

/** What a child says that makes these attempts, and is then killed over another, or ends. */
function said(names: readonly AttemptName[], killedOver?: AttemptName): string {
  const lines = names.flatMap((name) => [{ begin: name }, { end: { name } }]);
  return [...lines, ...(killedOver === undefined ? [] : [{ begin: killedOver }])]
    .map((line) => `${JSON.stringify(line)}\n`)
    .join('');
}

describe('attempted', () => {
  it('has all made by one process, if none is killed', () => {
    const started: unknown[] = [];
    const start = (names: readonly AttemptName[]): Ended => {
      started.push(names);
      return { stdout: said(names), how: 'ended with status 0' };
    };
    expect(attempted(start)).toEqual(ATTEMPTS.map((name) => ({ name })));
    expect(started).toEqual([ATTEMPTS]);
  });

  it('has those behind the one that a process was killed over made by another', () => {
    const deadly = new Set<AttemptName>(['process_vm_readv', 'seccomp']);
    const start = (names: readonly AttemptName[]): Ended => {
      const killedOver = names.find((name) => deadly.has(name));
      const made = killedOver === undefined ? names : names.slice(0, names.indexOf(killedOver));
      const all = made.includes('koffi') ? made : (['koffi', ...made] as const);
      return { stdout: said(all, killedOver), how: 'was ended by SIGSYS' };
    };
    const killed = { message: 'the process that tried it was ended by SIGSYS' };
    expect(attempted(start)).toEqual(ATTEMPTS.map((name) => ({ name, ...(deadly.has(name) && killed) })));
  });

  it('tries nothing without koffi', () => {
    const end = { name: 'koffi', message: 'libc.so.6: not found' } as const;
    const stdout = `${JSON.stringify({ begin: 'koffi' })}\n${JSON.stringify({ end })}\n`;
    expect(attempted(() => ({ stdout, how: 'ended with status 0' }))).toEqual([end]);
    expect(judge([end])).toEqual([
      expect.objectContaining({
        level: 'fail',
        what: expect.stringMatching(/loads: libc\.so\.6: not found$/) as string,
      }),
    ]);
  });

  it('tells that the process does not even begin', () => {
    const message = 'the process that tried it was ended by SIGILL';
    expect(attempted(() => ({ stdout: '', how: 'was ended by SIGILL' }))).toEqual([{ name: 'koffi', message }]);
  });

  it('takes no line for whole that is not', () => {
    const start = (names: readonly AttemptName[]): Ended => ({
      stdout: names.includes('koffi') ? said(['koffi']) + '{"end":{"name":"mem' : said(['koffi', ...names]),
      how: 'was ended by SIGKILL',
    });
    expect(attempted(start).filter(({ message }) => message !== undefined)).toEqual([
      { name: 'memfd', message: 'the process that tried it was ended by SIGKILL' },
    ]);
  });
});
