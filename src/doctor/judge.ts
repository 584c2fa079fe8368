import type { Check, Level } from './check.ts';
import type { AttemptName, Outcome } from './outcome.ts';

/** What an attempt is about, and what can be done if it fails. */
interface Meaning {
  readonly what: string;
  readonly otherwise: Exclude<Level, 'ok'>;
  readonly remedy: (outcome: Outcome) => string;
}

const SANDBOX =
  'what this runs in refuses it: a container needs --cap-add SYS_PTRACE or a seccomp profile that allows it, a systemd unit no SystemCallFilter=~@debug';

/** Of what is tried on another process: Yama's line says whether it is that. */
const TRACING = `if it is not Yama, ${SANDBOX}`;

/** Of a system call that Linux has had since then. */
const since =
  (version: string, otherwise = SANDBOX) =>
  ({ errno }: Outcome): string =>
    errno === 'ENOSYS' ? `needs Linux ${version}, or a sandbox that knows the call` : otherwise;

const MEANINGS: Readonly<Record<AttemptName, Meaning>> = {
  koffi: {
    what: 'koffi, by which system calls are made, loads',
    otherwise: 'fail',
    remedy: () =>
      'needs glibc on x86-64 or aarch64, and memory that may be executed; install vfio-shim with npm on this machine',
  },
  memfd: {
    what: 'shared memory: sealed, sparse files of memory',
    otherwise: 'fail',
    remedy: ({ errno }) => (errno === 'EFBIG' ? 'ulimit -f unlimited: the files are large, and empty' : SANDBOX),
  },
  pidfd_open: { what: 'pidfd_open', otherwise: 'fail', remedy: since('5.3') },
  pidfd_getfd: { what: 'pidfd_getfd', otherwise: 'fail', remedy: since('5.6', TRACING) },
  process_vm_readv: { what: 'process_vm_readv', otherwise: 'fail', remedy: since('3.2') },
  process_vm_writev: { what: 'process_vm_writev', otherwise: 'fail', remedy: since('3.2') },
  ptrace: {
    what: 'ptrace of a child',
    otherwise: 'warn',
    remedy: () => `without it a VMM cannot map the data section, and migrates slowly; ${TRACING}`,
  },
  seccomp: {
    what: 'seccomp user notification, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV',
    otherwise: 'fail',
    remedy: ({ errno }) => {
      if (errno === 'EBUSY') return 'there can be one listener: not in run, and not if the container runtime has one';
      return errno === 'EINVAL' ? 'needs Linux 5.19' : `needs CONFIG_SECCOMP_FILTER; ${SANDBOX}`;
    },
  },
  wake: {
    what: 'seccomp: wakes on the CPU of the call (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)',
    otherwise: 'warn',
    remedy: () => 'a trapped call takes several times as long; Linux 6.6 has it',
  },
};

/** What the attempts mean. One that was not made has no line: another that failed says why. */
export function judge(outcomes: readonly Outcome[]): Check[] {
  return outcomes.map((outcome) => {
    const { name, message } = outcome;
    const { what, otherwise, remedy } = MEANINGS[name];
    if (message === undefined) return { name, level: 'ok', what };
    return { name, level: otherwise, what: `${what}: ${message}`, remedy: remedy(outcome) };
  });
}
