import { constants } from 'node:os';

/** The exit status of a process that a signal ended, as a shell has it. */
export function statusOfSignal(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/**
 * Ends this process by a signal, as its default action does. Node gives a signal that back when its last listener goes, those
 * included that it ignores from its start (SIGPIPE).
 */
export function dieOf(signal: NodeJS.Signals): void {
  process.exitCode = statusOfSignal(signal); // if the signal comes late
  if (signal !== 'SIGKILL') process.on(signal, () => {}); // which nobody can listen to, or ignore
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
