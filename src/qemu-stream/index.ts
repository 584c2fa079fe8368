export { memorySource, type ByteSource } from '../byte-source.ts';
export { replaceVfioPayloads, vfioRecords, vfioSections, type VfioRecord } from './qemu-file.ts';
export {
  pciIdsOf,
  protocolOf,
  readVfioFile,
  type OnSection,
  type PciIds,
  type Stretch,
  type VfioDevice,
  type VfioFile,
} from './qemu-file-devices.ts';
export { inLayout62, withData, type DataPiece, type Part } from './qemu-file-rewrite.ts';
export type { SectionKind, VfioSection } from './qemu-file-walk.ts';
export type { Configuration } from './qemu-file-header.ts';
export type { Description } from './qemu-file-description.ts';
export type { RecordPlace } from './qemu-file-records.ts';
export {
  endsSection,
  streamTag,
  VFIO_MIG_FLAG,
  type Layout,
  type PieceEvent,
  type RecordEvent,
  type StreamEvent,
  type StreamRecord,
  type StreamTag,
} from './stream.ts';
export { StreamReader, type StreamReaderOptions } from './stream-reader.ts';
export { StreamWriter } from './stream-writer.ts';
