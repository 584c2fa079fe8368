/** The library: both protocols, the bridge between them, simulated devices, QEMU's stream format, errors. No I/O. */
export * from './error.ts';
export { sleepUntilReady, whenReady, type WaitForDevice } from './wait.ts';
export * from './v1/index.ts';
export * from './v2/index.ts';
export * from './bridge/index.ts';
export * from './sim/index.ts';
export { replaceVfioPayloads, vfioRecords, vfioSections, type VfioRecord } from './v1/qemu-file.ts';
export type { VfioSection } from './v1/qemu-file-walk.ts';
export {
  endsSection,
  streamTag,
  VFIO_MIG_FLAG,
  type PieceEvent,
  type RecordEvent,
  type StreamEvent,
  type StreamRecord,
  type StreamTag,
} from './v1/stream.ts';
export { StreamReader, type StreamReaderOptions } from './v1/stream-reader.ts';
export { StreamWriter } from './v1/stream-writer.ts';
