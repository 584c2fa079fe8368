import { ShimError, type ErrorCode } from '../error.ts';
import {
  checkedTag,
  endsSection,
  VFIO_MIG_FLAG,
  WORD_SIZE,
  type PieceEvent,
  type RecordEvent,
  type StreamEvent,
  type StreamTag,
} from './stream.ts';

/** Options of a StreamReader. */
export interface StreamReaderOptions {
  /** Largest size accepted for one data record, in bytes. Default: any that is a safe integer. */
  readonly maxDataSize?: number;
  /**
   * How many bytes follow DEV_CONFIG_STATE, if the caller knows it: the stream does not say. Without it, the
   * configuration reaches up to the last 8 bytes of the stream, and nothing can follow it.
   */
  readonly configSize?: number;
  /** Where the stream begins in a file; added to every offset that is reported. Default 0. */
  readonly offset?: number;
}

const hex = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;
const bytesOf = (count: number): string => (count === 1 ? '1 byte' : `${count} bytes`);

/**
 * Incremental parser of VFIO section payloads, one or several back to back. Memory use does not depend on the stream:
 * 8 bytes are kept between chunks, and the bytes of records are handed out as views of the chunks.
 *
 * ```ts
 * for (const chunk of chunks) for (const event of reader.push(chunk)) use(event);
 * for (const event of reader.end()) use(event);
 * ```
 */
export class StreamReader {
  readonly #maxDataSize: number;
  readonly #configSize: number | undefined;
  #state: 'tag' | 'size' | 'bytes' | 'config' = 'tag';
  /** The word being collected; in state `config`, the bytes held back because they may be the closing tag. */
  readonly #word = new Uint8Array(WORD_SIZE);
  readonly #wordView = new DataView(this.#word.buffer);
  #wordLength = 0;
  #chunk: Uint8Array = new Uint8Array(0);
  #cursor = 0;
  /** Stream offset of the chunk's first byte. */
  #chunkOffset: number;
  #previous: StreamTag = 'END_OF_STATE';
  #index = -1;
  #recordOffset = 0;
  #size: number | undefined;
  #at = 0;
  #failure: ShimError | undefined;

  constructor(options: StreamReaderOptions = {}) {
    this.#maxDataSize = Math.min(options.maxDataSize ?? Infinity, Number.MAX_SAFE_INTEGER);
    this.#configSize = options.configSize;
    this.#chunkOffset = options.offset ?? 0;
  }

  /** Takes the next chunk. The events must be read to the end before the next push(); a piece is a view of `chunk`. */
  push(chunk: Uint8Array): Generator<StreamEvent, void, undefined> {
    this.#nextChunk(chunk);
    return this.#events();
  }

  /**
   * The stream is over. Throws `ERR_STREAM_TRUNCATED` if a record or a section is incomplete. Returns the END_OF_STATE
   * that closes a configuration of unknown size, which only the end of the stream tells from configuration bytes.
   */
  end(): StreamEvent[] {
    this.#nextChunk(new Uint8Array(0));
    const held = this.#wordLength;
    switch (this.#state) {
      case 'tag':
        if (held > 0) throw this.#truncated('a record tag', WORD_SIZE - held);
        if (!endsSection(this.#previous)) {
          throw this.#truncated(`END_OF_STATE after ${this.#previous}`, WORD_SIZE);
        }
        return [];
      case 'size':
        throw this.#truncated('the size of a DEV_DATA_STATE record', WORD_SIZE - held);
      case 'bytes': {
        const missing = (this.#size ?? 0) - this.#at;
        throw this.#truncated(`${bytesOf(this.#size ?? 0)} of ${this.#previous}`, missing);
      }
      case 'config':
        if (held < WORD_SIZE) throw this.#truncated('END_OF_STATE after DEV_CONFIG_STATE', WORD_SIZE - held);
        if (this.#wordView.getBigUint64(0) !== VFIO_MIG_FLAG.END_OF_STATE) {
          throw this.#truncated('END_OF_STATE after the bytes of DEV_CONFIG_STATE', WORD_SIZE);
        }
        this.#state = 'tag';
        this.#wordLength = 0;
        return [this.#begin('END_OF_STATE', this.#chunkOffset - WORD_SIZE, 0)];
    }
  }

  *#events(): Generator<StreamEvent, void, undefined> {
    while (this.#cursor < this.#chunk.length) {
      const event = this.#step();
      if (event !== undefined) yield event;
    }
  }

  #step(): StreamEvent | undefined {
    switch (this.#state) {
      case 'tag':
        return this.#readTag();
      case 'size':
        return this.#readSize();
      case 'bytes':
        return this.#readBytes();
      case 'config':
        return this.#readConfig();
    }
  }

  #readTag(): StreamEvent | undefined {
    if (!this.#collectWord()) return undefined;
    const offset = this.#offset - WORD_SIZE;
    const checked = checkedTag(this.#wordView.getBigUint64(0), this.#previous, offset);
    if ('wrong' in checked) throw this.#corrupt(checked.wrong);
    const { tag } = checked;
    if (tag === 'DEV_DATA_STATE') {
      this.#recordOffset = offset;
      this.#state = 'size';
      return undefined;
    }
    if (tag === 'DEV_CONFIG_STATE') {
      this.#state = this.#configSize === undefined ? 'config' : this.#configSize > 0 ? 'bytes' : 'tag';
      return this.#begin(tag, offset, this.#configSize);
    }
    return this.#begin(tag, offset, 0);
  }

  #readSize(): StreamEvent | undefined {
    if (!this.#collectWord()) return undefined;
    const value = this.#wordView.getBigUint64(0);
    if (value > BigInt(this.#maxDataSize)) {
      throw this.#corrupt(
        `reading the size of the data record at offset ${this.#recordOffset}: ${value} bytes (${hex(value)}) ` +
          `is more than the limit of ${this.#maxDataSize}`,
      );
    }
    this.#state = value > 0n ? 'bytes' : 'tag';
    return this.#begin('DEV_DATA_STATE', this.#recordOffset, Number(value));
  }

  #readBytes(): StreamEvent {
    const size = this.#size ?? 0;
    const end = Math.min(this.#chunk.length, this.#cursor + size - this.#at);
    const bytes = this.#chunk.subarray(this.#cursor, end);
    this.#cursor = end;
    const piece = this.#piece(bytes);
    if (this.#at === size) this.#state = 'tag';
    return piece;
  }

  /** Hands out all but the last 8 bytes: only the end of the stream shows which END_OF_STATE is the closing one. */
  #readConfig(): StreamEvent | undefined {
    const free = this.#wordLength + this.#chunk.length - this.#cursor - WORD_SIZE;
    if (free <= 0) {
      this.#collectWord();
      return undefined;
    }
    if (this.#wordLength > 0) {
      const count = Math.min(free, this.#wordLength);
      const bytes = this.#word.slice(0, count);
      this.#word.copyWithin(0, count);
      this.#wordLength -= count;
      return this.#piece(bytes);
    }
    const bytes = this.#chunk.subarray(this.#cursor, this.#cursor + free);
    this.#cursor += free;
    return this.#piece(bytes);
  }

  /** Moves bytes of the chunk into the word; true when it is complete (and, unless held back, about to be used). */
  #collectWord(): boolean {
    const count = Math.min(WORD_SIZE - this.#wordLength, this.#chunk.length - this.#cursor);
    this.#word.set(this.#chunk.subarray(this.#cursor, this.#cursor + count), this.#wordLength);
    this.#cursor += count;
    this.#wordLength += count;
    if (this.#wordLength < WORD_SIZE) return false;
    if (this.#state !== 'config') this.#wordLength = 0;
    return true;
  }

  #begin(tag: StreamTag, offset: number, size: number | undefined): RecordEvent {
    this.#previous = tag;
    this.#index++;
    this.#size = size;
    this.#at = 0;
    return { kind: 'record', tag, index: this.#index, offset, size };
  }

  #piece(bytes: Uint8Array): PieceEvent {
    const at = this.#at;
    this.#at += bytes.length;
    const tag = this.#previous === 'DEV_CONFIG_STATE' ? 'DEV_CONFIG_STATE' : 'DEV_DATA_STATE';
    return { kind: 'piece', tag, index: this.#index, at, size: this.#size, bytes };
  }

  get #offset(): number {
    return this.#chunkOffset + this.#cursor;
  }

  #nextChunk(chunk: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    const unread = this.#chunk.length - this.#cursor;
    if (unread > 0) {
      throw new ShimError('ERR_ARGUMENT', `reading the stream at offset ${this.#offset}: ${unread} bytes left unread`);
    }
    this.#chunkOffset = this.#offset;
    this.#chunk = chunk;
    this.#cursor = 0;
  }

  #truncated(expected: string, missing: number): ShimError {
    const message = `reading the stream: it ends at offset ${this.#offset}, expected ${expected}, ${bytesOf(missing)} missing`;
    return this.#fail('ERR_STREAM_TRUNCATED', message);
  }

  #corrupt(message: string): ShimError {
    return this.#fail('ERR_STREAM_CORRUPT', message);
  }

  #fail(code: ErrorCode, message: string): ShimError {
    this.#failure = new ShimError(code, message);
    return this.#failure;
  }
}
