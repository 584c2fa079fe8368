import type { V2DataSession, PrecopyInfo } from '../../v2/device.ts';
import { V2, type V2State } from '../../v2/states.ts';
import { mustBe, prepare, type Rule } from '../rule.ts';
import { lacks, lacksPreCopy, type V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const INFO = 'linux/vfio.h 6.12, VFIO_MIG_GET_PRECOPY_INFO';

function info(subject: V2Subject, session: V2DataSession): PrecopyInfo {
  return subject.await(() => session.precopyInfo());
}

function tellsSizes(id: string, state: V2State, name: string): V2Rule {
  return {
    id,
    sentence: `VFIO_MIG_GET_PRECOPY_INFO tells in ${name} how many initial and dirty bytes there are: less than 2^53.`,
    source: INFO,
    exempts: lacks(state),
    try(subject) {
      const session = subject.begun(state);
      for (const [what, bytes] of Object.entries(info(subject, session))) {
        if (typeof bytes === 'boolean' || bytes === undefined) continue;
        mustBe(Number.isSafeInteger(bytes) && bytes >= 0 && bytes < Number.MAX_SAFE_INTEGER, `${what} is ${bytes}`);
      }
    },
  };
}

/** What drivers give before they stop. */
export const preCopyRules: readonly V2Rule[] = [
  tellsSizes('v2-precopy-info', V2.PRE_COPY, 'PRE_COPY'),
  tellsSizes('v2-precopy-info-p2p', V2.PRE_COPY_P2P, 'PRE_COPY_P2P'),
  {
    id: 'v2-precopy-info-refused',
    sentence: 'VFIO_MIG_GET_PRECOPY_INFO is EINVAL in STOP_COPY.',
    source: INFO,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      const errno = subject.refusal(() => session.precopyInfo());
      mustBe(errno === 'EINVAL', `it is answered with ${errno ?? 'success'}`);
    },
  },
  {
    id: 'v2-precopy-initial',
    sentence: 'initial_bytes is not 0 when pre-copy begins.',
    source: `${INFO}: initial_bytes`,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      const { initialBytes } = prepare(() => info(subject, session));
      mustBe(initialBytes > 0, 'initial_bytes is 0');
    },
  },
  {
    id: 'v2-precopy-initial-read',
    sentence: 'initial_bytes decreases as data is read, and is 0 once there is none for the moment.',
    source: `${INFO}: initial_bytes`,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      prepare(() => info(subject, session)); // until then a driver may be about to make the first data
      prepare(() => subject.readPreCopy(session));
      const { initialBytes } = prepare(() => info(subject, session));
      mustBe(initialBytes === 0, `initial_bytes is ${initialBytes} though there is no data`);
    },
  },
  {
    id: 'v2-precopy-end',
    sentence: 'In PRE_COPY a read for which there is no data is ENOMSG: the end is temporary.',
    source: `${INFO}: temporary end of stream`,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      prepare(() => subject.readPreCopy(session));
      const read = subject.readNow(session, new Uint8Array(1));
      mustBe(read === 'ENOMSG', `the read returns ${read}`);
    },
  },
  {
    id: 'v2-precopy-load',
    sentence: 'What PRE_COPY has given and what STOP_COPY gives behind it is one state.',
    source: 'linux/vfio.h 6.12, enum vfio_device_mig_state: saving group, STOP -> RESUMING (a single FD)',
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      const first = prepare(() => subject.readPreCopy(session));
      subject.come(V2.STOP_COPY);
      const rest = prepare(() => subject.readToEnd(session));
      subject.again();
      subject.load(Buffer.concat([first, rest]));
    },
  },
  {
    id: 'v2-precopy-unread',
    sentence: 'What was not read in PRE_COPY is not lost in STOP_COPY.',
    source: 'linux/vfio.h 6.12, enum vfio_device_mig_state: saving group',
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      subject.come(V2.STOP_COPY);
      const state = prepare(() => subject.readToEnd(session));
      subject.again();
      subject.load(state);
    },
  },
];
