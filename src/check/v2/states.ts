import { nextState } from '../../v2/fsm.ts';
import { V2, v2StateName, type V2State, type V2StateName } from '../../v2/states.ts';
import { mustBe, type Rule } from '../rule.ts';
import { lacks, type V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const ALL_FLAGS = 7;
/** The states that can be asked for. */
const STATES = (Object.keys(V2) as V2StateName[]).filter((name) => name !== 'ERROR');
const ENUM = 'linux/vfio.h 6.12, enum vfio_device_mig_state';

/** As an id has it. */
const inId = (name: string): string => name.toLowerCase().replaceAll('_', '-');

function arc(from: V2StateName, to: V2StateName): V2Rule {
  const [source, target] = [V2[from], V2[to]];
  const id = `v2-arc-${inId(from)}-${inId(to)}`;
  const exempts = (subject: V2Subject): string | undefined => lacks(source)(subject) ?? lacks(target)(subject);
  if (nextState(ALL_FLAGS, source, target) === null) {
    return {
      id,
      sentence: `A driver refuses ${to} in ${from} with EINVAL, and stays there.`,
      source: `${ENUM}: STOP_COPY -> ${to}; drivers/vfio/vfio_main.c 6.12, vfio_mig_get_next_state`,
      exempts,
      try(subject) {
        subject.comeToLeave(source);
        refused(subject, target, source);
      },
    };
  }
  return {
    id,
    sentence: from === to ? `A driver takes ${to} in ${to}, and stays there.` : `A driver goes from ${from} to ${to}.`,
    source: `${ENUM}; drivers/vfio/vfio_main.c 6.12, vfio_mig_get_next_state`,
    exempts,
    try(subject) {
      subject.comeToLeave(source);
      subject.set(target);
      subject.mustBeIn(target);
    },
  };
}

function refused(subject: V2Subject, target: number, stays: V2State): void {
  const errno = subject.refusal(() => subject.set(target));
  mustBe(errno === 'EINVAL', `SET ${v2StateName(target)} is answered with ${errno ?? 'success'}`);
  subject.mustBeIn(stays);
}

function absent(name: 'RUNNING_P2P' | 'PRE_COPY' | 'PRE_COPY_P2P'): V2Rule {
  return {
    id: `v2-absent-${inId(name)}`,
    sentence: `A driver without ${name} refuses it with EINVAL.`,
    source: `${ENUM}: optional states; drivers/vfio/vfio_main.c 6.12, vfio_mig_get_next_state`,
    exempts: (subject) => (subject.has(V2[name]) ? `the device has ${name}` : undefined),
    try: (subject) => refused(subject, V2[name], V2.RUNNING),
  };
}

function reset(name: V2StateName): V2Rule {
  return {
    id: `v2-reset-${inId(name)}`,
    sentence: `VFIO_DEVICE_RESET in ${name} brings the device to RUNNING.`,
    source: `linux/vfio.h 6.12, struct vfio_device_feature_mig_state: VFIO_DEVICE_RESET; ${ENUM}: any -> ERROR, RESUMING -> STOP`,
    exempts: lacks(V2[name]),
    try(subject) {
      subject.come(V2[name]);
      subject.device.reset();
      subject.mustBeIn(V2.RUNNING);
    },
  };
}

/** Which states there are, how one comes from one to the other, and what is refused. */
export const stateRules: readonly V2Rule[] = [
  {
    id: 'v2-flags',
    sentence: 'A driver offers STOP_COPY, and with it P2P, PRE_COPY, both or none: flags 1, 3, 5 or 7.',
    source: 'linux/vfio.h 6.12, struct vfio_device_feature_migration',
    try({ device }) {
      const flags = device.migrationFlags;
      mustBe([1, 3, 5, 7].includes(flags), `the migration flags are ${flags}`);
    },
  },
  ...STATES.flatMap((from) => STATES.map((to) => arc(from, to))),
  ...(['RUNNING_P2P', 'PRE_COPY', 'PRE_COPY_P2P'] as const).map(absent),
  {
    id: 'v2-refused-error',
    sentence: 'A driver refuses ERROR, which cannot be asked for, with EINVAL.',
    source: `${ENUM}: any -> ERROR`,
    try: (subject) => refused(subject, V2.ERROR, V2.RUNNING),
  },
  {
    id: 'v2-refused-unknown',
    sentence: 'A driver refuses a number that is no state with EINVAL.',
    source: `${ENUM}; drivers/vfio/vfio_main.c 6.12, vfio_mig_get_next_state`,
    try: (subject) => refused(subject, Math.max(...Object.values(V2)) + 1, V2.RUNNING),
  },
  ...STATES.map(reset),
  {
    id: 'v2-size',
    sentence: 'A driver says in any state how much stop-copy will have: less than 2^53 bytes.',
    source: 'linux/vfio.h 6.12, struct vfio_device_feature_mig_data_size',
    exempts: (subject) => {
      const errno = subject.refusal(() => subject.device.stopCopyLength());
      return errno === 'ENOTTY' ? 'there is no MIG_DATA_SIZE (ENOTTY)' : undefined;
    },
    try(subject) {
      for (const name of STATES.filter((each) => subject.has(V2[each]))) {
        subject.again();
        subject.comeToLeave(V2[name]);
        const size = subject.await(() => subject.device.stopCopyLength());
        mustBe(
          Number.isSafeInteger(size) && size >= 0 && size < Number.MAX_SAFE_INTEGER,
          `MIG_DATA_SIZE is ${size} in ${name}`,
        );
      }
    },
  },
];
