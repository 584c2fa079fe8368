import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { mappedAt } from '../../v1/data-section.ts';
import { V1 } from '../../v1/states.ts';
import { mustBe, NotTried, prepare, type Rule } from '../rule.ts';
import { shown, type V1Subject } from './subject.ts';

type V1Rule = Rule<V1Subject>;

const UAPI = 'linux/vfio.h 5.8, struct vfio_device_migration_info';
const SAVING = `${UAPI}: sequence in pre-copy and stop-and-copy`;
const RESUMING = `${UAPI}: sequence while _RESUMING`;
const PAGE = 4096n;
/** As QEMU 5.2 to 7.2 reads data that is not mapped (hw/vfio/migration.c, vfio_mig_rw). */
const QEMU_ACCESS = 8;
/** So much of a buffer is compared, and looked at in pieces. */
const LOOK = 16 * 1024;
const ROUNDS = 3;
/** A driver that counts nothing down. */
const MOST_BUFFERS = 2 ** 20;
const GARBAGE = 0xa5;

/** Writes a bad state. True if a write failed. */
function writeBad(subject: V1Subject, buffers: readonly Uint8Array[]): boolean {
  subject.come(V1.RESUMING);
  try {
    subject.loading(buffers);
    return false;
  } catch (error) {
    if (error instanceof ShimError) return true;
    throw error;
  }
}

function refuses(id: string, what: string, bad: (buffers: Uint8Array[]) => Uint8Array[]): V1Rule {
  return {
    id,
    sentence: `A driver refuses ${what}: a write of data_size fails, or RUNNING in RESUMING does.`,
    source: `${UAPI}: device_state, a failed transition`,
    try(subject) {
      if (writeBad(subject, bad(subject.saved()))) return;
      mustBe(subject.refusal(() => subject.set(V1.RUNNING)) !== undefined, 'the device runs, and no error was told');
    },
  };
}

function garbage(buffers: readonly Uint8Array[]): Uint8Array[] {
  return buffers.map((buffer) => new Uint8Array(buffer.length).fill(GARBAGE));
}

/** pending_bytes, data_offset, data_size and the data section. */
export const dataRules: readonly V1Rule[] = [
  {
    id: 'v1-pending-again',
    sentence: 'A second read of pending_bytes has no side effect.',
    source: `${SAVING}, a`,
    try(subject) {
      subject.comeToStopCopy();
      const [first, second] = [subject.value('pending_bytes'), subject.value('pending_bytes')];
      mustBe(first === second, `pending_bytes is ${first}, and then ${second}`);
    },
  },
  {
    id: 'v1-buffer-again',
    sentence: 'data_offset and data_size that are read again show the same buffer.',
    source: `${SAVING}, c`,
    try(subject) {
      const { offset, size } = subject.firstBuffer();
      const again = subject.await(() => subject.registers.dataBuffer());
      mustBe(again.offset === offset && again.size === size, `they show ${again.size} bytes at ${again.offset} then`);
    },
  },
  {
    id: 'v1-data-offset',
    sentence: 'data_offset lies behind the registers, and is that of a page if the data section can be mapped.',
    source: `${UAPI}: data section`,
    try(subject) {
      subject.firstBuffer();
      const offset = subject.value('data_offset');
      mustBe(offset >= BigInt(vfio_device_migration_info.size), `data_offset is ${offset}`);
      const isMapped = subject.device.mapped !== undefined;
      mustBe(!isMapped || offset % PAGE === 0n, `data_offset is ${offset}, which is no page's`);
    },
  },
  {
    id: 'v1-data-size',
    sentence: 'A buffer ends within the region.',
    source: `${SAVING}, b and c`,
    try(subject) {
      subject.comeToStopCopy();
      if (prepare(() => subject.value('pending_bytes')) === 0n) throw new NotTried('nothing is pending');
      const [offset, size] = [subject.value('data_offset'), subject.value('data_size')];
      const { regionSize } = subject.device;
      mustBe(offset + size <= BigInt(regionSize), `${size} bytes at ${offset} of ${regionSize}`);
    },
  },
  {
    id: 'v1-save-end',
    sentence: 'In stop-and-copy each buffer has bytes until pending_bytes is 0.',
    source: `${SAVING}, f`,
    try(subject) {
      subject.firstBuffer();
      for (let n = 0; ; n += 1) {
        const { offset, size } = subject.await(() => subject.registers.dataBuffer());
        mustBe(size > 0, 'data_size is 0 while pending_bytes is not');
        mustBe(n < MOST_BUFFERS, `pending_bytes is not 0 after ${MOST_BUFFERS} buffers`);
        readAll(subject, offset, size);
        if (subject.await(() => subject.registers.pendingBytes()) === 0) return;
      }
    },
  },
  {
    id: 'v1-stop-copy-direct',
    sentence: 'A state that was saved without a pre-copy is whole.',
    source: `${UAPI}: state transitions, 2`,
    try(subject) {
      const buffers: Uint8Array[] = [];
      subject.come(V1.STOP_COPY);
      while (prepare(() => subject.await(() => subject.registers.pendingBytes())) > 0) {
        const { offset, size } = prepare(() => subject.await(() => subject.registers.dataBuffer()));
        if (size === 0) break;
        buffers.push(readAll(subject, offset, size));
      }
      mustBe(buffers.length > 0, 'nothing is pending');
      subject.again();
      subject.load(buffers);
    },
  },
  {
    id: 'v1-pre-copy-pending',
    sentence: 'pending_bytes can be read in pre-copy, whether there is data or not.',
    source: `${SAVING}, a; state transitions, 3`,
    try(subject) {
      subject.come(V1.PRE_COPY);
      subject.value('pending_bytes');
    },
  },
  {
    id: 'v1-pre-copy-load',
    sentence: 'What pre-copy has given and what stop-and-copy gives behind it is one state.',
    source: `${UAPI}: state transitions, 3`,
    try(subject) {
      const buffers = prepare(() => subject.save(Number.MAX_SAFE_INTEGER));
      subject.again();
      subject.load(buffers);
    },
  },
  {
    id: 'v1-load',
    sentence: 'A driver takes the state that it has given, though its pre-copy was not read, and lets the device run.',
    source: `${RESUMING}; state transitions, 3 and 5`,
    try(subject) {
      subject.load(subject.saved());
    },
  },
  {
    id: 'v1-repeat',
    sentence: 'A device can be migrated again and again without a reset.',
    source: `${UAPI}: state transitions; QEMU 7.2, hw/vfio/migration.c, vfio_save_cleanup`,
    try(subject) {
      prepare(() => subject.load(subject.saved()));
      for (let n = 1; n <= ROUNDS; n += 1) {
        const buffers = subject.save(0);
        mustBe(buffers.length > 0, `save ${n} has no data`);
        subject.set(V1.RUNNING);
        subject.load(buffers);
      }
    },
  },
  {
    id: 'v1-data-read',
    sentence: 'Data that can be mapped can be read as well, with the same bytes.',
    source: `${UAPI}: data section (not required to access through mmap)`,
    exempts: ({ device }) => (device.mapped === undefined ? 'the data section cannot be mapped' : undefined),
    try(subject) {
      const { offset, size } = subject.firstBuffer();
      const length = Math.min(size, LOOK);
      const mapped = mappedAt(subject.device, offset, length);
      if (mapped === undefined) throw new NotTried('the buffer is not in the part that is mapped');
      const bytes = new Uint8Array(length);
      subject.await(() => subject.device.read(offset, bytes));
      mustBe(Buffer.compare(bytes, mapped) === 0, 'the bytes are others');
    },
  },
  {
    id: 'v1-data-pieces',
    sentence: 'Data that is read in pieces is the same as data that is read at once.',
    source: `${UAPI}: data section`,
    exempts: ({ device }) => (device.mapped === undefined ? undefined : 'the data section can be mapped'),
    try(subject) {
      const { offset, size } = subject.firstBuffer();
      const bytes = new Uint8Array(Math.min(size, LOOK));
      for (let at = 0; at < bytes.length; at += QEMU_ACCESS) {
        prepare(() => subject.await(() => subject.device.read(offset + at, bytes.subarray(at, at + QEMU_ACCESS))));
      }
      const whole = new Uint8Array(bytes.length);
      subject.await(() => subject.device.read(offset, whole));
      mustBe(Buffer.compare(bytes, whole) === 0, 'the bytes are others');
    },
  },
  {
    id: 'v1-data-again',
    sentence: 'Data that is read again leaves pending_bytes what it is.',
    source: `${SAVING}, d and f`,
    try(subject) {
      const { offset, size } = subject.firstBuffer();
      const twice = Math.min(size, QEMU_ACCESS);
      const pending = (): bigint => {
        readAll(subject, offset, size);
        return subject.value('pending_bytes');
      };
      const once = prepare(pending);
      subject.again();
      subject.firstBuffer();
      subject.await(() => subject.device.read(offset, new Uint8Array(twice)));
      const again = pending();
      mustBe(again === once, `pending_bytes is ${again} then, and ${once} if nothing was read again`);
    },
  },
  refuses('v1-refuses-nothing', 'a state of which nothing was written', () => []),
  refuses('v1-refuses-truncated', 'a state without its last byte', (buffers) => {
    const last = buffers.at(-1) ?? new Uint8Array(0);
    return [...buffers.slice(0, -1), ...(last.length > 1 ? [last.subarray(0, -1)] : [])];
  }),
  refuses('v1-refuses-garbage', 'bytes that are no state', garbage),
  {
    id: 'v1-refused-state',
    sentence: 'A write of device_state that fails leaves the state that was before, or ERROR (6).',
    source: `${UAPI}: device_state, a failed transition`,
    try(subject) {
      const bad = garbage(subject.saved());
      prepare(() => writeBad(subject, bad));
      const before = prepare(() => subject.state());
      if (subject.refusal(() => subject.set(V1.RUNNING)) === undefined)
        throw new NotTried('no write of device_state fails');
      const found = subject.state();
      mustBe(found === before || found === V1.ERROR, `device_state was ${shown(before)}, and is ${shown(found)}`);
    },
  },
  {
    id: 'v1-refused-reset',
    sentence: 'A device that has refused a state runs after a reset, and takes a good one.',
    source: `${UAPI}: device_state, error state`,
    try(subject) {
      const good = subject.saved();
      prepare(() => writeBad(subject, garbage(good)));
      prepare(() => subject.refusal(() => subject.set(V1.RUNNING)));
      subject.device.reset();
      subject.mustBeIn(V1.RUNNING);
      subject.load(good);
    },
  },
];

/** A buffer, in accesses that every driver takes; mapped if it can be. */
function readAll(subject: V1Subject, offset: number, size: number): Uint8Array {
  const mapped = mappedAt(subject.device, offset, size);
  if (mapped?.length === size) return mapped.slice();
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += QEMU_ACCESS) {
    subject.await(() => subject.device.read(offset + at, bytes.subarray(at, at + QEMU_ACCESS)));
  }
  return bytes;
}
