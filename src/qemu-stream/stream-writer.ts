import { ShimError } from '../error.ts';
import { tagBytes, VFIO_MIG_FLAG, WORD_SIZE, type StreamRecord } from './stream.ts';

function pieces(bytes: Uint8Array | readonly Uint8Array[]): readonly Uint8Array[] {
  return bytes instanceof Uint8Array ? [bytes] : bytes;
}

/**
 * Produces records as chunks: headers are new, data chunks are the caller's own views, nothing is copied. Writing the
 * chunks in order writes the stream.
 */
export const StreamWriter = {
  /** The 16 bytes before the data of a DEV_DATA_STATE record, for data that is not in memory as a whole. */
  dataHeader(size: number): Uint8Array {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new ShimError('ERR_ARGUMENT', `writing a data record: ${size} is no size in bytes`);
    }
    const bytes = new Uint8Array(2 * WORD_SIZE);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, VFIO_MIG_FLAG.DEV_DATA_STATE);
    view.setBigUint64(WORD_SIZE, BigInt(size));
    return bytes;
  },

  /** One record. */
  record(record: StreamRecord): Uint8Array[] {
    switch (record.tag) {
      case 'DEV_DATA_STATE': {
        const data = pieces(record.bytes);
        const size = data.reduce((sum, piece) => sum + piece.length, 0);
        return [StreamWriter.dataHeader(size), ...data];
      }
      case 'DEV_CONFIG_STATE':
        return [tagBytes(record.tag), ...pieces(record.bytes)];
      default:
        return [tagBytes(record.tag)];
    }
  },

  /** Payload of a START section: `vfio_save_setup()`. */
  setupSection(): Uint8Array[] {
    return [tagBytes('DEV_SETUP_STATE'), tagBytes('END_OF_STATE')];
  },

  /**
   * Payload of a PART or END section: a DEV_DATA_STATE record for each item, then the tag that ends the section
   * (`vfio_save_iterate()`, `vfio_save_complete_precopy()`).
   */
  dataSection(
    data: Iterable<Uint8Array | readonly Uint8Array[]>,
    end: 'END_OF_STATE' | 'DEV_INIT_DATA_SENT' = 'END_OF_STATE',
  ): Uint8Array[] {
    const records = Array.from(data, (bytes) => StreamWriter.record({ tag: 'DEV_DATA_STATE', bytes }));
    return [...records.flat(), tagBytes(end)];
  },

  /** Payload of a FULL section, in layout 5.2 the beginning of an END payload: `vfio_save_device_config_state()`. The bytes are PCI state in QEMU's own layout. */
  configSection(bytes: Uint8Array | readonly Uint8Array[]): Uint8Array[] {
    return [tagBytes('DEV_CONFIG_STATE'), ...pieces(bytes), tagBytes('END_OF_STATE')];
  },
} as const;
