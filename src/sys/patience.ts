import { struct } from '../abi/struct.ts';
import { functionAddress, syscall, syscallError, trySigaction, trySyscall, withAddress } from './libc.ts';

/*
 * A call that may block, by a thread that has others to serve: a timer interrupts it (EINTR) after a while, and again and again until it
 * has ended, since the first signal may come before the call has begun. Calls in which a driver waits interruptibly end so, and have done
 * nothing then; others go on.
 */

/** How long a call may block, in nanoseconds. */
const PATIENCE = 5_000_000n;

/** A signal that nothing else here uses, one of the last real-time ones (signal(7)). */
const SIGNAL = 63;
/** linux/time.h, asm-generic/siginfo.h */
const CLOCK_MONOTONIC = 1;
const SIGEV_THREAD_ID = 4;

/** `struct sigevent` (asm-generic/siginfo.h). */
const sigevent = struct('sigevent', 64, {
  sigev_signo: ['s32', 8],
  sigev_notify: ['s32', 12],
  sigev_notify_thread_id: ['s32', 16],
});

/** `struct itimerspec` (linux/time.h), seconds left out. */
const itimerspec = struct('itimerspec', 32, { interval_nsec: ['s64', 8], value_nsec: ['s64', 24] });

/** `struct sigaction` of glibc on 64-bit machines: handler, mask, flags, restorer. */
const sigaction = struct('sigaction', 152, { sa_handler: ['u64', 0] });

// SAFETY: referenced as long as this module.
const armed = itimerspec.encode({ interval_nsec: PATIENCE, value_nsec: PATIENCE });
const disarmed = itimerspec.encode({});

let timer: number | undefined;

/** The thread's timer, made when it is first needed. */
function ownTimer(): number {
  timer ??= makeTimer();
  return timer;
}

function makeTimer(): number {
  // on the signal abs(3) is called: it may be at any time, and does nothing. No SA_RESTART, so the call ends
  const action = sigaction.encode({ sa_handler: functionAddress('abs') });
  const result = withAddress(action, (at) => trySigaction(SIGNAL, at));
  if (result < 0) throw syscallError('a signal that interrupts calls', 'sigaction', -result);
  const event = sigevent.encode({
    sigev_signo: SIGNAL,
    sigev_notify: SIGEV_THREAD_ID,
    sigev_notify_thread_id: trySyscall('gettid'),
  });
  const id = new Uint8Array(4);
  withAddress(event, (at) =>
    withAddress(id, (idAt) => syscall('a timer that interrupts calls', 'timer_create', CLOCK_MONOTONIC, at, idAt)),
  );
  return new DataView(id.buffer).getInt32(0, true);
}

function set(time: Uint8Array): void {
  const id = ownTimer();
  withAddress(time, (at) => syscall('a timer that interrupts calls', 'timer_settime', id, 0, at, 0));
}

/** Makes a call that is to end soon, with `EINTR` if it has not. */
export function withPatience<T>(call: () => T): T {
  set(armed);
  try {
    return call();
  } finally {
    set(disarmed);
  }
}
