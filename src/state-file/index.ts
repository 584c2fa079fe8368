/** Reads state files, as `vfio-shim save` writes them (docs/state-file.md). */
export { memorySource, type ByteSource } from '../byte-source.ts';
export type { StateHeader } from './format.ts';
export type { Identity } from './identity.ts';
export { StateReader, type BufferPiece, type Watch } from './reader.ts';
