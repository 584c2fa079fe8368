import { errnoNameOrEio, ShimError } from '../error.ts';
import { V1, type V1State } from '../v1/states.ts';
import type { PresentV1State } from './present-v1-state.ts';
import { Session } from './session.ts';

/*
 * If a session has ended behind the back of presentV1's user, an error must tell the user so, or a new one would be taken for its
 * continuation.
 */

/** Every access to data fails, until a write of device_state or a reset settles the loss. */
export function refuseDataAfterLoss(my: PresentV1State): void {
  if (my.lost === Session.NONE) return;
  my.told = 1;
  throw lostSession(my.lost, my.lost_errno);
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

/**
 * Real drivers let RESUMING end successfully after a write of data that they refused (mlx5, virtio, QAT, mtty in Linux 6.12). The
 * device has not got its state then: every way out of RESUMING but a reset fails with what the write failed with.
 */
export function refuseAfterFailedWrite(errno: number): void {
  if (errno === 0) return;
  throw new ShimError('ERR_DEVICE', 'migration data: a write failed, the device lacks some of its state', {
    errno: errnoNameOrEio(errno),
  });
}

function lostSession(kind: number, errno: number): ShimError {
  const what = kind === Session.SAVING ? 'saving' : 'resuming';
  return new ShimError('ERR_SESSION_ENDED', `migration data: the ${what} session ended behind the user's back`, {
    errno: errnoNameOrEio(errno),
  });
}
