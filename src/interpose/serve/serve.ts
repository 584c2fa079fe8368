import { errnoNumber } from '../../abi/errno.ts';
import { SECCOMP_USER_NOTIF_FLAG_CONTINUE } from '../../abi/seccomp.ts';
import { isNotReady, ShimError } from '../../error.ts';
import { ANSWERED, CONTINUE, type Call } from '../trap/call.ts';
import { warn } from '../run/log.ts';
import type { AccessRecorder } from './access-recorder.ts';
import type { Router } from './router.ts';
import type { Turn } from '../memory/turn.ts';

/** Serves a call, commits what it changed and answers it. If it has to wait for its device, nothing happened, and that error is returned. */
export function serve(call: Call, turn: Turn, router: Router, recorder?: AccessRecorder): ShimError | undefined {
  turn.begin(call);
  recorder?.begin(call);
  try {
    return answer(turn, router, recorder);
  } finally {
    turn.end();
  }
}

function answer(turn: Turn, router: Router, recorder: AccessRecorder | undefined): ShimError | undefined {
  const { answers, call } = turn;
  let value = 0;
  let error = 0;
  try {
    value = router.dispatch(turn);
  } catch (failure) {
    if (isNotReady(failure)) {
      recorder?.parked(call);
      return failure;
    }
    error = -errorNumber(failure);
  }
  router.touchPeers(turn); // of a call that has to wait they stay noted
  const { words } = call;
  if (value === CONTINUE) answers.respond(words, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
  else {
    turn.commit(value, error);
    if (error === 0 && router.goesOn) answers.goesOn();
    if (value !== ANSWERED) answers.respond(words, value, error);
  }
  recorder?.end(call, value, error);
  turn.goAhead();
  if (error === 0 && router.readAhead(call)) turn.commit(value, error);
  return undefined;
}

/** The errno that the target sees. A failure of our own is EIO to it, and is said here. */
function errorNumber(failure: unknown): number {
  if (failure instanceof ShimError) return failure.errnoNumber;
  warn(`internal error: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}`);
  return errnoNumber('EIO');
}
