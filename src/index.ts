/** The library: both protocols, the bridge between them, simulated devices, QEMU's stream format, errors. No I/O. */
export * from './error.ts';
export { sleepUntilReady, whenReady, type WaitForDevice } from './wait.ts';
export * from './v1/index.ts';
export * from './v2/index.ts';
export * from './bridge/index.ts';
export * from './sim/index.ts';
export { replaceVfioPayloads, vfioRecords, vfioSections, type VfioRecord } from './qemu-stream/qemu-file.ts';
export type { VfioSection } from './qemu-stream/qemu-file-walk.ts';
export {
  endsSection,
  streamTag,
  VFIO_MIG_FLAG,
  type PieceEvent,
  type RecordEvent,
  type StreamEvent,
  type StreamRecord,
  type StreamTag,
} from './qemu-stream/stream.ts';
export { StreamReader, type StreamReaderOptions } from './qemu-stream/stream-reader.ts';
export { StreamWriter } from './qemu-stream/stream-writer.ts';
