export { replaceVfioPayloads, vfioRecords, vfioSections, type VfioRecord } from './qemu-file.ts';
export type { VfioSection } from './qemu-file-walk.ts';
export {
  endsSection,
  streamTag,
  VFIO_MIG_FLAG,
  type PieceEvent,
  type RecordEvent,
  type StreamEvent,
  type StreamRecord,
  type StreamTag,
} from './stream.ts';
export { StreamReader, type StreamReaderOptions } from './stream-reader.ts';
export { StreamWriter } from './stream-writer.ts';
