import type { ByteSource } from '../../src/byte-source.ts';
import { fileSize } from '../../src/state-file/format.ts';
import type { Identity } from '../../src/state-file/identity.ts';
import { StateReader } from '../../src/state-file/reader.ts';
import { StateWriter, type ByteSink } from '../../src/state-file/writer.ts';

/** A file in memory. */
export class MemoryFile implements ByteSink, ByteSource {
  bytes = new Uint8Array(0);

  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    this.bytes = new Uint8Array(bytes);
  }

  get size(): number {
    return this.bytes.length;
  }

  write(bytes: Uint8Array, position: number): void {
    const end = position + bytes.length;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(end);
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.set(bytes, position);
  }

  read(into: Uint8Array, position: number): number {
    const piece = this.bytes.subarray(position, position + into.length);
    into.set(piece);
    return piece.length;
  }
}

/** A whole state file with these buffers. */
export function stateFile(
  buffers: readonly Uint8Array[],
  protocol: 'v1' | 'v2' = 'v1',
  identity: Identity = { driver: 'test' },
): MemoryFile {
  const file = new MemoryFile();
  const writer = new StateWriter(file);
  for (const buffer of buffers) writer.buffer(buffer);
  const header = writer.finish(protocol, identity);
  if (file.size !== fileSize(header)) throw new Error(`a file of ${file.size} bytes, not ${fileSize(header)}`);
  return file;
}

/** The buffers of a file, each in memory of its own. */
export function buffersOf(file: ByteSource, most = 2 ** 20): Uint8Array[] {
  return Array.from(new StateReader(file).buffers(most), (buffer) => buffer.slice());
}
