import { ShimError } from '../../error.ts';
import { statePath } from '../../v2/fsm.ts';
import { V2, v2StateName } from '../../v2/states.ts';
import { mustBe, NotTried, prepare, type Rule } from '../rule.ts';
import type { V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const ENUM = 'linux/vfio.h 6.12, enum vfio_device_mig_state';
const LEAVING = `${ENUM}: RESUMING -> STOP`;
const GARBAGE = 0xa5;
/** So much behind a state is more than any driver rounds it up to. */
const SURPLUS = 2 ** 20;

/** Writes a bad state, until a write fails. True if one did. */
function writeBad(subject: V2Subject, state: Uint8Array): boolean {
  const session = subject.resuming();
  try {
    subject.write(session, state);
    return false;
  } catch (error) {
    if (error instanceof ShimError) return true;
    throw error;
  }
}

/** A bad state must fail while it is written, or when RESUMING is left. */
function refuses(id: string, what: string, bad: (state: Uint8Array) => Uint8Array): V2Rule {
  return {
    id,
    sentence: `A driver refuses ${what}: a write fails, or RESUMING cannot be left.`,
    source: LEAVING,
    try(subject) {
      if (writeBad(subject, bad(subject.saved()))) return;
      mustBe(subject.refusal(() => subject.set(V2.STOP)) !== undefined, 'the device is in STOP, and no error was told');
    },
  };
}

const garbage = (state: Uint8Array): Uint8Array => new Uint8Array(state.length).fill(GARBAGE);

/** What a driver must not take for its state. */
export const refusalRules: readonly V2Rule[] = [
  refuses('v2-refuses-nothing', 'a state of which nothing was written', () => new Uint8Array(0)),
  refuses('v2-refuses-truncated', 'a state without its last byte', (state) => state.subarray(0, -1)),
  refuses('v2-refuses-garbage', 'bytes that are no state', garbage),
  refuses('v2-refuses-surplus', 'a state with a megabyte behind it', (state) =>
    Buffer.concat([state, new Uint8Array(SURPLUS)]),
  ),
  {
    id: 'v2-refused-for-good',
    sentence: 'After a write that failed the state is not whole: RESUMING cannot be left.',
    source: LEAVING,
    try(subject) {
      if (!writeBad(subject, garbage(subject.saved()))) throw new NotTried('no write fails: the driver judges later');
      mustBe(subject.refusal(() => subject.set(V2.STOP)) !== undefined, 'the device is in STOP all the same');
    },
  },
  {
    id: 'v2-refused-state',
    sentence: 'A change of state that fails leaves the device in its old state, in one on the way, or in ERROR.',
    source: 'linux/vfio.h 6.12, struct vfio_device_feature_mig_state',
    try(subject) {
      prepare(() => writeBad(subject, garbage(subject.saved())));
      if (subject.refusal(() => subject.set(V2.RUNNING)) === undefined) throw new NotTried('no change of state fails');
      const possible = [V2.RESUMING, V2.ERROR, ...statePath(subject.device.migrationFlags, V2.RESUMING, V2.RUNNING)];
      const found = subject.state();
      mustBe(possible.slice(0, -1).includes(found), `the device is in ${v2StateName(found)}`);
    },
  },
  {
    id: 'v2-refused-reset',
    sentence: 'A device that has refused a state runs after a reset, and takes a good one.',
    source: `${ENUM}: RESUMING -> STOP, any -> ERROR`,
    try(subject) {
      const state = subject.saved();
      prepare(() => writeBad(subject, garbage(state)));
      prepare(() => subject.refusal(() => subject.set(V2.STOP)));
      subject.device.reset();
      subject.mustBeIn(V2.RUNNING);
      subject.load(state);
    },
  },
];
