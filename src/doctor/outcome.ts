/** What is tried in a child, in this order: the filter of `seccomp` stays with the process that has installed it. */
export const ATTEMPTS = [
  'koffi',
  'memfd',
  'pidfd_open',
  'pidfd_getfd',
  'process_vm_readv',
  'process_vm_writev',
  'ptrace',
  'seccomp',
  'wake',
] as const;

export type AttemptName = (typeof ATTEMPTS)[number];

/** How an attempt came out: well, if there is no message. */
export interface Outcome {
  readonly name: AttemptName;
  readonly errno?: string;
  readonly message?: string;
}

/** A line of the child's: what it begins, which is all that is known if it is killed over it, or what came of it. */
export type AttemptLine = { readonly begin: AttemptName } | { readonly end: Outcome };
