import type { OwnedFd } from '../sys/fd.ts';

/**
 * Where the data fd of the session that goes on is kept. A front end whose process may be replaced keeps it outside, with
 * the session's number, so that its successor finds it.
 */
export interface SessionStore {
  put(session: number, fd: OwnedFd): void;
  /** A new descriptor of the data fd, which the caller closes; `undefined` if nothing is kept. */
  take(): { readonly session: number; readonly fd: OwnedFd } | undefined;
  clear(): void;
}

/** For a process that is not replaced: nothing needs to be kept besides the session itself. */
export const noStore: SessionStore = {
  put: () => {},
  take: () => undefined,
  clear: () => {},
};
