import { errnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import { V1, type V1State } from '../v1/states.ts';
import type { PresentV1State } from './present-v1-state.ts';
import { Session } from './session.ts';

/*
 * A session that ended behind the back of presentV1's user must reach the user as an error, or a new one would be taken for
 * its continuation.
 */

/** Every access to data fails. */
export function refuseDataAfterLoss({ lost, lost_errno }: PresentV1State): void {
  if (lost !== Session.NONE) throw lostSession(lost, lost_errno);
}

/**
 * The next write that begins a session fails, as does one that runs or stops a device whose resuming was lost. A VM stop
 * during a save that was lost says nothing yet, since its user may not know; running the device gives the save up.
 */
export function refuseStateAfterLoss(my: PresentV1State, value: V1State): void {
  const { lost, lost_errno } = my;
  if (lost === Session.NONE || (lost === Session.SAVING && value === V1.STOP)) return;
  my.lost = Session.NONE;
  if (lost === Session.RESUMING || value !== V1.RUNNING) throw lostSession(lost, lost_errno);
}

function lostSession(kind: number, errno: number): ShimError {
  const what = kind === Session.SAVING ? 'saving' : 'resuming';
  return new ShimError('ERR_SESSION_ENDED', `migration data: the ${what} session ended behind the user's back`, {
    errno: errnoName(errno) ?? 'EIO',
  });
}
