import { fieldWidth } from '../../abi/struct.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import type { V1RegisterName } from '../../v1/region.ts';
import { V1 } from '../../v1/states.ts';
import { mustBe, prepare, type Rule } from '../rule.ts';
import type { V1Subject } from './subject.ts';

type V1Rule = Rule<V1Subject>;

const UAPI = 'linux/vfio.h 5.8, struct vfio_device_migration_info';
const { fields } = vfio_device_migration_info;
const WIDTHS = [1, 2, 4, 8] as const;

function width(register: V1RegisterName): V1Rule {
  const [kind, offset] = fields[register];
  const native = fieldWidth(kind);
  return {
    id: `v1-width-${register.replaceAll('_', '-')}`,
    sentence: `A driver refuses a read of ${register} that has not its ${native} bytes.`,
    source: `${UAPI}: native width and alignment`,
    try(subject) {
      for (const bytes of WIDTHS.filter((each) => each !== native)) {
        const errno = subject.refusal(() => subject.device.read(offset, new Uint8Array(bytes)));
        mustBe(errno !== undefined, `a read of ${bytes} bytes succeeds`);
      }
    },
  };
}

function readOnly(register: 'pending_bytes' | 'data_offset'): V1Rule {
  return {
    id: `v1-read-only-${register.replaceAll('_', '-')}`,
    sentence: `A write to ${register} changes nothing.`,
    source: `${UAPI}: ${register} (read only)`,
    try(subject) {
      if (register === 'data_offset') subject.firstBuffer();
      else subject.comeToStopCopy();
      const before = prepare(() => subject.value(register));
      subject.refusal(() => subject.device.write(fields[register][1], new Uint8Array(8).fill(0x11)));
      const after = subject.value(register);
      mustBe(after === before, `it was ${before}, and is ${after}`);
    },
  };
}

/** How the registers are accessed. */
export const registerRules: readonly V1Rule[] = [
  ...(['device_state', 'pending_bytes', 'data_offset', 'data_size'] as const).map(width),
  {
    id: 'v1-alignment',
    sentence: 'A driver refuses a read that begins within a register.',
    source: `${UAPI}: native width and alignment`,
    try(subject) {
      for (const [offset, bytes] of [
        [2, 4],
        [fields.pending_bytes[1] + 4, 8],
      ] as const) {
        const errno = subject.refusal(() => subject.device.read(offset, new Uint8Array(bytes)));
        mustBe(errno !== undefined, `a read of ${bytes} bytes at ${offset} succeeds`);
      }
    },
  },
  {
    id: 'v1-reserved',
    sentence: 'reserved is read as 0, and a write to it succeeds and changes nothing.',
    source: `${UAPI}: reserved`,
    try(subject) {
      subject.await(() => subject.device.write(fields.reserved[1], new Uint8Array(4).fill(0xff)));
      const value = subject.value('reserved');
      mustBe(value === 0n, `reserved is ${value}`);
      subject.mustBeIn(V1.RUNNING);
    },
  },
  readOnly('pending_bytes'),
  readOnly('data_offset'),
];
