import type { V2DataSession } from '../../v2/device.ts';
import { V2, v2StateName, type V2State } from '../../v2/states.ts';
import { mustBe, prepare, type Rule } from '../rule.ts';
import { lacks, lacksPreCopy, type V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const ENUM = 'linux/vfio.h 6.12, enum vfio_device_mig_state';

function begins(name: 'STOP_COPY' | 'PRE_COPY' | 'RESUMING', arc: string): V2Rule {
  return {
    id: `v2-session-${name.toLowerCase().replaceAll('_', '-')}`,
    sentence: `A driver begins a data session when it enters ${name}.`,
    source: `${ENUM}: ${arc}`,
    exempts: lacks(V2[name]),
    try(subject) {
      mustBe(subject.come(V2[name]) !== undefined, `there is no data_fd in ${name}`);
    },
  };
}

/** Asks for states one after the other, of which none may begin a session. */
function beginNone(subject: V2Subject, states: readonly V2State[]): void {
  for (const state of states.filter((each) => subject.has(each))) {
    const session = subject.come(state);
    mustBe(session === undefined, `SET ${v2StateName(state)} begins a data session`);
  }
}

function mustHaveEnded(subject: V2Subject, operation: () => unknown, what: string): void {
  mustBe(subject.refusal(operation) !== undefined, `${what} of the old data_fd succeeds`);
}

function readOne(session: V2DataSession): () => unknown {
  return () => session.read(new Uint8Array(1));
}

/** When a data session begins, goes on and ends. */
export const sessionRules: readonly V2Rule[] = [
  begins('STOP_COPY', 'STOP -> STOP_COPY'),
  begins('PRE_COPY', 'RUNNING -> PRE_COPY'),
  begins('RESUMING', 'STOP -> RESUMING'),
  {
    id: 'v2-session-none',
    sentence: 'A driver begins no data session when it enters STOP, RUNNING or RUNNING_P2P.',
    source: `${ENUM}; struct vfio_device_feature_mig_state: data_fd`,
    try: (subject) => beginNone(subject, [V2.RUNNING_P2P, V2.STOP, V2.RUNNING]),
  },
  {
    id: 'v2-session-again',
    sentence: 'A driver begins no second data session when it is asked for the state that it is in.',
    source: 'drivers/vfio/vfio_main.c 6.12, vfio_mig_get_next_state',
    try(subject) {
      for (const state of [V2.PRE_COPY, V2.STOP_COPY, V2.RESUMING].filter((each) => subject.has(each))) {
        subject.again();
        subject.begun(state);
        beginNone(subject, [state]);
      }
    },
  },
  {
    id: 'v2-session-goes-on',
    sentence: 'The data session of PRE_COPY goes on in STOP_COPY, to the end of the stream.',
    source: `${ENUM}: saving group, PRE_COPY_P2P -> STOP_COPY`,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      beginNone(subject, [V2.STOP_COPY]);
      subject.readToEnd(session);
    },
  },
  {
    id: 'v2-session-p2p-goes-on',
    sentence: 'The data session of PRE_COPY goes on in PRE_COPY_P2P, and back.',
    source: `${ENUM}: saving group, PRE_COPY_P2P -> PRE_COPY`,
    exempts: lacks(V2.PRE_COPY_P2P),
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      beginNone(subject, [V2.PRE_COPY_P2P, V2.PRE_COPY]);
      subject.readPreCopy(session);
    },
  },
  {
    id: 'v2-session-ends-stop-copy',
    sentence: 'The data session ends when the driver leaves STOP_COPY for STOP: a read fails.',
    source: `${ENUM}: STOP_COPY -> STOP`,
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      prepare(() => subject.readToEnd(session));
      subject.come(V2.STOP);
      mustHaveEnded(subject, readOne(session), 'a read');
    },
  },
  {
    id: 'v2-session-ends-pre-copy',
    sentence: 'The data session ends when the driver leaves PRE_COPY for RUNNING: a read fails.',
    source: `${ENUM}: PRE_COPY -> RUNNING`,
    exempts: lacksPreCopy,
    try(subject) {
      const session = subject.begun(V2.PRE_COPY);
      subject.come(V2.RUNNING);
      mustHaveEnded(subject, readOne(session), 'a read');
    },
  },
  {
    id: 'v2-session-ends-resuming',
    sentence: 'The data session ends when the driver leaves RESUMING for STOP: a write fails.',
    source: `${ENUM}: RESUMING -> STOP`,
    try(subject) {
      const state = subject.saved();
      const session = subject.resumingWith(state);
      subject.come(V2.STOP);
      mustHaveEnded(subject, () => session.write(state.subarray(0, 1)), 'a write');
    },
  },
  {
    id: 'v2-session-ends-reset',
    sentence: 'The data session ends with VFIO_DEVICE_RESET: a read fails.',
    source: `${ENUM}: any -> ERROR; drivers/vfio/pci/mlx5/main.c 6.12, mlx5vf_disable_fds`,
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      subject.device.reset();
      subject.state(); // where a client of the device learns of it
      mustHaveEnded(subject, readOne(session), 'a read');
    },
  },
  {
    id: 'v2-session-saving-reads',
    sentence: 'The data_fd of a saving session cannot be written to.',
    source: `${ENUM}: STOP -> STOP_COPY; drivers/vfio/pci/mlx5/main.c 6.12, mlx5vf_pci_save_device_data (O_RDONLY)`,
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      mustBe(subject.refusal(() => session.write(new Uint8Array(1))) !== undefined, 'a write succeeds');
    },
  },
  {
    id: 'v2-session-resuming-writes',
    sentence: 'The data_fd of a resuming session cannot be read from.',
    source: `${ENUM}: STOP -> RESUMING; drivers/vfio/pci/mlx5/main.c 6.12, mlx5vf_pci_resume_device_data (O_WRONLY)`,
    try(subject) {
      const session = subject.resuming();
      mustBe(subject.refusal(readOne(session)) !== undefined, 'a read succeeds');
    },
  },
];
