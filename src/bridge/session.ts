import { isSaving, V2, type V2State } from '../v2/states.ts';

/** The kinds of data session, as a bridge remembers them. */
export const Session = { NONE: 0, SAVING: 1, RESUMING: 2 } as const;
export type SessionKind = (typeof Session)[keyof typeof Session];

/** The kind of session that a device has in a state. */
export function sessionOf(state: V2State): SessionKind {
  if (isSaving(state)) return Session.SAVING;
  return state === V2.RESUMING ? Session.RESUMING : Session.NONE;
}
