import type { V2DataSession } from '../../v2/device.ts';
import { V2 } from '../../v2/states.ts';
import { mustBe, prepare, type Rule } from '../rule.ts';
import type { V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const ENUM = 'linux/vfio.h 6.12, enum vfio_device_mig_state';
const SEGMENTS = 'linux/vfio.h 6.12, struct vfio_device_feature_mig_state: buffer segmentation';
const SMALL = [1, 7, 4096] as const;
/** So often a device is migrated without a reset between. */
const ROUNDS = 3;

function read(subject: V2Subject, session: V2DataSession, length: number): number {
  return subject.await(() => session.read(new Uint8Array(length)));
}

/** What passes through a data session, and that it is a state. */
export const dataRules: readonly V2Rule[] = [
  {
    id: 'v2-read-length',
    sentence: 'A read returns no more bytes than it was asked for.',
    source: 'read(2)',
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      for (const length of SMALL) {
        const got = read(subject, session, length);
        mustBe(Number.isInteger(got) && got >= 0 && got <= length, `a read of ${length} bytes returns ${got}`);
      }
    },
  },
  {
    id: 'v2-write-length',
    sentence: 'A write takes at least one byte, and no more than it was given.',
    source: 'write(2); QEMU 10.2, hw/vfio/migration-multifd.c, vfio_load_state_buffer_write',
    try(subject) {
      const state = subject.saved();
      const session = subject.resuming();
      let at = 0;
      for (const length of SMALL) {
        const piece = state.subarray(at, at + length);
        if (piece.length === 0) return;
        const taken = subject.await(() => session.write(piece));
        mustBe(
          Number.isInteger(taken) && taken > 0 && taken <= piece.length,
          `a write of ${piece.length} bytes returns ${taken}`,
        );
        at += taken;
      }
    },
  },
  {
    id: 'v2-end',
    sentence: 'In STOP_COPY the stream ends with reads of 0 bytes, and never with ENOMSG.',
    source: 'linux/vfio.h 6.12, VFIO_MIG_GET_PRECOPY_INFO: permanent end of stream',
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      subject.readToEnd(session);
      for (let n = 0; n < 2; n += 1) {
        const more = read(subject, session, 1);
        mustBe(more === 0, `a read behind the end returns ${more}`);
      }
    },
  },
  {
    id: 'v2-load',
    sentence: 'A driver takes the state that it has given, and lets the device run.',
    source: `${ENUM}: STOP -> RESUMING, RESUMING -> STOP`,
    try(subject) {
      subject.load(subject.saved());
    },
  },
  {
    id: 'v2-read-pieces',
    sentence: 'A state that was read in pieces of any size is whole.',
    source: SEGMENTS,
    try(subject) {
      const session = subject.begun(V2.STOP_COPY);
      const state = subject.readToEnd(session, 13);
      subject.again();
      subject.load(state);
    },
  },
  {
    id: 'v2-write-pieces',
    sentence: 'A driver takes a state in pieces of any size.',
    source: SEGMENTS,
    try(subject) {
      subject.load(subject.saved(), 7);
    },
  },
  {
    id: 'v2-stop-copy-left',
    sentence: 'A driver leaves STOP_COPY though its stream was not read to the end.',
    source: `${ENUM}: STOP_COPY -> STOP; QEMU 10.0, hw/vfio/migration.c, vfio_vmstate_change (a migration that is cancelled)`,
    try(subject) {
      prepare(() => subject.begun(V2.STOP_COPY));
      subject.set(V2.RUNNING);
      subject.mustBeIn(V2.RUNNING);
    },
  },
  {
    id: 'v2-repeat',
    sentence: 'A device can be migrated again and again without a reset.',
    source: `${ENUM}; QEMU 10.0, hw/vfio/migration.c, vfio_save_cleanup`,
    try(subject) {
      prepare(() => subject.load(subject.saved()));
      for (let n = 0; n < ROUNDS; n += 1) subject.migrate();
    },
  },
];
