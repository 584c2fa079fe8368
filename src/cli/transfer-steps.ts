import { sha256Of } from '../sim/byte-store.ts';
import { isReadyFd, ShimError } from '../error.ts';
import { isChange, stateIn } from '../device/device-event.ts';
import { recover, type MigratableDevice } from '../device/migratable.ts';
import { observe } from '../device/observe.ts';
import { onFile } from '../state-file/errors.ts';
import type { StateHeader } from '../state-file/format.ts';
import { differences } from '../state-file/identity.ts';
import { NewFile } from '../state-file/new-file.ts';
import { OpenFile } from '../state-file/open-file.ts';
import { StateReader } from '../state-file/reader.ts';
import { restoreDevice } from '../state-file/restore.ts';
import { saveDevice } from '../state-file/save.ts';
import { StateWriter } from '../state-file/writer.ts';
import { PollSet } from '../sys/poll.ts';
import { sleepUntilReady, type WaitForDevice } from '../wait.ts';
import { identityOf, migratableOf, openDevice, type OpenDevice } from './device.ts';
import { parseDevice } from './device-name.ts';
import { logger } from './logs.ts';
import { beginTransferRecording, type TransferRecording } from './transfer-recording.ts';
import { TransferControl, type TransferMessage, type TransferOrder, type TransferResult } from './transfer-control.ts';

const logDevice = logger('device');
const logFile = logger('file');

type Tell = (message: TransferMessage) => void;

/** Carries an order out, in a thread that may block. */
export function carryOut(order: TransferOrder, tell: Tell): TransferResult {
  const transfer = new Transfer(order, tell);
  try {
    return order.command === 'save' ? transfer.save() : transfer.restore();
  } finally {
    transfer.endRecording();
  }
}

class Transfer {
  readonly #order: TransferOrder;
  readonly #tell: Tell;
  readonly #control: TransferControl;
  readonly #poll = new PollSet(1);
  readonly #states: string[] = [];
  #recording: TransferRecording | undefined;

  constructor(order: TransferOrder, tell: Tell) {
    this.#order = order;
    this.#tell = tell;
    this.#control = new TransferControl(order.control);
  }

  save(): TransferResult {
    const { file: path, force, device: text } = this.#order;
    const name = parseDevice(text);
    using file = new NewFile(path, force);
    logFile('%s: writes %s', path, file.temporary);
    this.#tell({ kind: 'temporary', path: file.temporary });
    using device = openDevice(name);
    const target = this.#ready(device);
    this.#control.begin('save');
    const writer = new StateWriter(file);
    const begun = performance.now();
    const sink = (buffer: Uint8Array): void => {
      this.#goOn();
      writer.buffer(buffer);
      this.#control.done = writer.bytes;
    };
    const expect = (bytes: number): void => {
      this.#control.total = Math.max(this.#control.total, bytes);
    };
    saveDevice(target, sink, { wait: this.#wait, expect });
    this.#control.begin('sync file');
    const header = writer.finish(target.protocol, identityOf(device));
    this.#goOn();
    file.commit();
    logFile('%s: complete, %d bytes of data', path, header.bytes);
    return this.#result(device, target, header, begun);
  }

  restore(): TransferResult {
    const { file: path, device: text } = this.#order;
    const name = parseDevice(text);
    using file = new OpenFile(path);
    const reader = onFile(path, () => new StateReader(file));
    const { header } = reader;
    this.#control.begin('check file', header.bytes);
    const watch = (bytes: number): void => {
      this.#goOn();
      this.#control.done += bytes;
    };
    onFile(path, () => reader.check(watch));
    logFile('%s: as it was written, %d bytes of data from a %s device', path, header.bytes, header.protocol);
    this.#control.begin('open device');
    using device = openDevice(name);
    this.#compare(header, device);
    const target = this.#ready(device);
    this.#control.begin('restore', header.bytes);
    const begun = performance.now();
    onFile(path, () => restoreDevice(target, (most) => watching(reader.buffers(most), watch), this.#wait));
    return this.#result(device, target, header, begun);
  }

  endRecording(): void {
    this.#recording?.end();
  }

  /** The device, running, whatever state an earlier user has left it in. */
  #ready(device: OpenDevice): MigratableDevice {
    const { text, foundIn } = device;
    logDevice('%s: %s, driver %s, %s', text, device.migratable?.protocol, device.facts.driver, foundIn);
    const migratable = migratableOf(device);
    this.#recording = beginTransferRecording(this.#order, text, migratable, (why) =>
      this.#tell({ kind: 'note', text: why }),
    );
    const target = observe(migratable, (event, bytes) => {
      this.#recording?.call(event, bytes);
      if (event.errno !== undefined || !isChange(event)) return;
      const state = event.call === 'reset' ? 'reset' : (stateIn(event) ?? '');
      logDevice('%s: %s', text, state);
      if (this.#states.at(-1) !== state) this.#states.push(state);
    });
    if (foundIn !== 'RUNNING') {
      this.#tell({ kind: 'note', text: `${text} was left in ${foundIn} by an earlier user: reset` });
      recover(target, 'reset');
    }
    this.#states.push('RUNNING');
    return target;
  }

  /** Throws `ERR_OTHER_DEVICE` if the state is of another kind of device, unless it is to be tried all the same. */
  #compare({ identity }: StateHeader, device: OpenDevice): void {
    migratableOf(device);
    const { file, force } = this.#order;
    const found = differences(identity, identityOf(device));
    if (found.length === 0) return;
    const what = `${file}: the state is of another device: ${found.join('; ')}`;
    if (!force) {
      throw new ShimError('ERR_OTHER_DEVICE', `${what}; --force lets the driver decide`, {
        errno: 'EINVAL',
      });
    }
    this.#tell({ kind: 'note', text: what });
  }

  #result(device: OpenDevice, target: MigratableDevice, header: StateHeader, begun: number): TransferResult {
    const { command, file } = this.#order;
    const seconds = (performance.now() - begun) / 1000;
    if (device.guestMemory !== undefined) this.#control.begin('hash memory');
    const { bytes, buffers, sha256 } = header;
    return {
      command,
      device: device.text,
      protocol: target.protocol,
      file,
      bytes,
      buffers,
      seconds: rounded(seconds),
      mibPerSecond: rounded(bytes / 2 ** 20 / Math.max(seconds, 1e-6)),
      sha256,
      states: this.#states,
      ...(device.guestMemory && { guestSha256: sha256Of(device.guestMemory) }),
    };
  }

  /** Throws if the user has had enough. */
  #goOn(): void {
    if (this.#control.interrupted) {
      throw new ShimError('ERR_INTERRUPTED', `${this.#order.command}: interrupted`, { errno: 'EINTR' });
    }
  }

  /** For a device that says "not yet": until it is ready, or a moment, in which a signal may have come. */
  readonly #wait: WaitForDevice = (readiness) => {
    this.#goOn();
    // a driver without poll (xe) is called ready at once, always: then the clock counts
    if (!isReadyFd(readiness) || performance.now() - this.#woken < 1) {
      sleepUntilReady();
      return;
    }
    const MOMENT = 100;
    this.#poll.set(0, readiness.fd, readiness.events);
    if (this.#poll.wait(1, MOMENT)) this.#woken = performance.now();
  };
  /** When the device's descriptor was last said to be ready. */
  #woken = -Infinity;
}

function* watching(buffers: Iterable<Uint8Array>, watch: (bytes: number) => void): Generator<Uint8Array> {
  for (const buffer of buffers) {
    watch(buffer.length);
    yield buffer;
  }
}

function rounded(number: number): number {
  return Math.round(number * 1000) / 1000;
}
