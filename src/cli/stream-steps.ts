import type { ByteSource } from '../byte-source.ts';
import { ShimError } from '../error.ts';
import {
  pciIdsOf,
  protocolOf,
  readVfioFile,
  type OnSection,
  type Stretch,
  type VfioDevice,
  type VfioFile,
} from '../qemu-stream/qemu-file-devices.ts';
import { elsewhere, inLayout62, withData, type DataPiece, type Part } from '../qemu-stream/qemu-file-rewrite.ts';
import { onFile } from '../state-file/errors.ts';
import { differences, type Identity } from '../state-file/identity.ts';
import { NewFile } from '../state-file/new-file.ts';
import { OpenFile } from '../state-file/open-file.ts';
import { StateReader } from '../state-file/reader.ts';
import { StateWriter } from '../state-file/writer.ts';
import { chosenDevice, isCalled, nameOf } from './stream-device.ts';
import { TransferControl, type ListedDevice, type StreamOrder } from './transfer-control.ts';
import type { StreamResult, TransferMessage } from './transfer-control.ts';

type Tell = (message: TransferMessage) => void;

const BLOCK = 1024 * 1024;

/** Carries an order out, in a thread that may block. */
export function carryOutStream(order: StreamOrder, tell: Tell): StreamResult {
  using file = new OpenFile(order.file);
  const control = new TransferControl(order.control);
  control.begin('read file', file.size);
  try {
    return new StreamSteps(order, watched(file, control), control, tell).result();
  } catch (error) {
    throw error instanceof ShimError && error.code.startsWith('ERR_STREAM_')
      ? new ShimError(error.code, `${order.file}: ${error.message}`, { cause: error })
      : error;
  }
}

/** A file of which every read tells how far it has been read, and throws if the user has had enough. */
function watched(file: ByteSource, control: TransferControl): ByteSource {
  return {
    size: file.size,
    read(into, position) {
      if (control.interrupted) throw new ShimError('ERR_INTERRUPTED', 'stream: interrupted', { errno: 'EINTR' });
      const read = file.read(into, position);
      control.done = Math.max(control.done, position + read);
      return read;
    },
  };
}

class StreamSteps {
  readonly #order: StreamOrder;
  readonly #source: ByteSource;
  readonly #control: TransferControl;
  readonly #tell: Tell;

  constructor(order: StreamOrder, source: ByteSource, control: TransferControl, tell: Tell) {
    this.#order = order;
    this.#source = source;
    this.#control = control;
    this.#tell = tell;
  }

  result(): StreamResult {
    const { action } = this.#order;
    switch (action.what) {
      case 'list':
        return this.#list();
      case 'extract':
        return this.#extract(action.device, action.output);
      case 'replace':
        return this.#replace(action.device, action.state, action.output);
      case 'convert':
        return this.#convert(action.output);
    }
  }

  #list(): StreamResult {
    const { configuration, devices, description } = readVfioFile(this.#source);
    const { machine, capabilities } = configuration;
    return {
      ...this.#head,
      action: 'list',
      bytes: this.#source.size,
      machine,
      capabilities,
      mappedRam: capabilities.includes('mapped-ram'),
      described: description !== undefined,
      devices: devices.map((device) => this.#listed(configuration, device)),
    };
  }

  #listed(configuration: VfioFile['configuration'], found: VfioDevice): ListedDevice {
    const { device, instanceId, layout, data, config, sections, tags, place } = found;
    const { id = null, subsystem = null } = this.#idsOf(found);
    return {
      device,
      instanceId,
      id,
      subsystem,
      state: layout === undefined ? 'multifd' : 'here',
      layout: layout ?? null,
      protocol: protocolOf(configuration, found) ?? null,
      dataBytes: data.bytes,
      dataRecords: data.records,
      configBytes: config === undefined ? 0 : config.end - config.start,
      configOffset: config?.start ?? null,
      sections,
      flags: tags,
      begin: place.start,
      end: place.end,
    };
  }

  /** One device's data as a state file. */
  #extract(name: string, output: string): StreamResult {
    using made = this.#newFile(output);
    const writer = new StateWriter(made);
    const onSection: OnSection = (section, records) => {
      if (!isCalled(name, section)) return;
      for (const { tag, start, end } of records) {
        if (tag !== 'DEV_DATA_STATE') continue;
        writer.beginBuffer(end - start);
        for (const piece of this.#pieces({ start, end })) writer.more(piece);
      }
    };
    const { configuration, devices } = readVfioFile(this.#source, onSection);
    const device = chosenDevice(name, devices);
    if (device.layout === undefined) throw elsewhere(`extracting "${nameOf(device, devices)}"`);
    this.#control.begin('sync file');
    const protocol = protocolOf(configuration, device);
    // what is not known is told as v1, to whose drivers buffers mean something
    const { bytes, buffers, sha256, identity } = writer.finish(protocol ?? 'v1', this.#identityOf(device));
    made.commit();
    const called = nameOf(device, devices);
    return {
      ...this.#head,
      action: 'extract',
      device: called,
      output,
      protocol: protocol ?? null,
      bytes,
      buffers,
      sha256,
      identity,
    };
  }

  /** The file with a state file's data in the place of one device's. */
  #replace(name: string, state: string, output: string): StreamResult {
    using stateFile = new OpenFile(state);
    const reader = onFile(state, () => new StateReader(watched(stateFile, this.#control)));
    onFile(state, () => reader.check());
    const { devices } = readVfioFile(this.#source);
    const device = chosenDevice(name, devices);
    const found = differences(reader.header.identity, this.#identityOf(device));
    if (found.length > 0) {
      const what = `${state}: the state is of another device than "${nameOf(device, devices)}": ${found.join('; ')}`;
      throw new ShimError('ERR_OTHER_DEVICE', what, { errno: 'EINVAL' });
    }
    this.#write(output, withData(this.#source, device, ofFile(state, reader.pieces(BLOCK))));
    const { bytes, buffers } = reader.header;
    return { ...this.#head, action: 'replace', device: nameOf(device, devices), state, output, bytes, buffers };
  }

  #convert(output: string): StreamResult {
    const file = readVfioFile(this.#source);
    this.#write(output, inLayout62(this.#source, file));
    const devices = file.devices.map((device) => nameOf(device, file.devices));
    return { ...this.#head, action: 'convert', output, devices };
  }

  #write(output: string, parts: Iterable<Part>): void {
    using made = this.#newFile(output);
    this.#control.begin('write file', this.#source.size);
    let position = 0;
    const append = (bytes: Uint8Array): void => {
      made.write(bytes, position);
      position += bytes.length;
    };
    for (const part of parts) {
      if (part instanceof Uint8Array) append(part);
      else for (const piece of this.#pieces(part)) append(piece);
    }
    this.#control.begin('sync file');
    made.commit();
  }

  #newFile(output: string): NewFile {
    const file = new NewFile(output, this.#order.force);
    this.#tell({ kind: 'temporary', path: file.temporary });
    return file;
  }

  /** What the file says of a device that a state file can say too. */
  #identityOf(device: VfioDevice): Identity {
    const ids = this.#idsOf(device);
    return ids.id === undefined ? {} : { bus: 'pci', ...ids };
  }

  #idsOf({ config }: VfioDevice): { readonly id?: string; readonly subsystem?: string } {
    return (config && pciIdsOf(this.#source, config)) ?? {};
  }

  /** A stretch of the file, in memory that is reused. */
  *#pieces({ start, end }: Stretch): Generator<Uint8Array, void> {
    const memory = this.#memory;
    for (let at = start; at < end;) {
      const piece = memory.subarray(0, Math.min(memory.length, end - at));
      if (this.#source.read(piece, at) < piece.length) {
        throw new ShimError('ERR_STREAM_TRUNCATED', `reading at offset ${at}: the file has become shorter`);
      }
      yield piece;
      at += piece.length;
    }
  }
  readonly #memory = new Uint8Array(BLOCK);

  get #head(): { readonly command: 'stream'; readonly file: string } {
    return { command: 'stream', file: this.#order.file };
  }
}

/** What is wrong with a file that is read in the midst of another's is told of that one. */
function* ofFile(path: string, pieces: Generator<DataPiece, void>): Generator<DataPiece, void> {
  for (;;) {
    const { done, value } = onFile(path, () => pieces.next());
    if (done === true) return;
    yield value;
  }
}
