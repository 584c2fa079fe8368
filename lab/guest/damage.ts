import { replaceVfioPayloads, vfioRecords, type VfioRecord } from '../../src/qemu-stream/qemu-file.ts';

/** What may happen to a saved VM. None of it is anything that QEMU itself would look for. */

/** Tag and size of a record with data. */
const HEADER = 16;

/** The records of a saved VM that carry data of its devices. */
function dataRecords(file: Uint8Array): VfioRecord[] {
  return vfioRecords(file).filter(({ tag, bytes }) => tag === 'DEV_DATA_STATE' && bytes.length > 0);
}

/** How many bytes of its devices a saved VM has. */
export function dataSize(file: Uint8Array): number {
  return dataRecords(file).reduce((sum, { bytes }) => sum + bytes.length, 0);
}

function lastRecord(file: Uint8Array): VfioRecord {
  const record = dataRecords(file).at(-1);
  if (record === undefined) throw new Error('the saved VM has no data of a device');
  return record;
}

/** One byte of the device's data is another; for mtty they begin with its header. */
export function withWrongByte(file: Uint8Array, position: number): Uint8Array {
  const copy = Uint8Array.from(file);
  let begin = 0;
  for (const { offset, bytes } of dataRecords(file)) {
    const place = offset + HEADER + position - begin;
    if (position >= begin && position < begin + bytes.length) copy[place] = (copy[place] ?? 0) ^ 0xff;
    begin += bytes.length;
  }
  if (position >= begin) throw new Error(`the saved VM has ${begin} bytes of a device`);
  return copy;
}

/** The file ends within the last data. */
export function cutShort(file: Uint8Array): Uint8Array {
  const { offset, bytes } = lastRecord(file);
  return file.subarray(0, offset + HEADER + (bytes.length >> 1));
}

/** The last data are only half, and say so: QEMU finds nothing amiss. */
export function withShortRecord(file: Uint8Array): Uint8Array {
  const last = lastRecord(file);
  const size = last.bytes.length >> 1;
  const chunks = replaceVfioPayloads(file, ({ payload }, records) => {
    if (!records.some(({ offset }) => offset === last.offset)) return undefined;
    const header = Buffer.from(file.subarray(last.offset, last.offset + HEADER));
    header.writeBigUInt64BE(BigInt(size), HEADER / 2);
    const behind = last.offset + HEADER + last.bytes.length;
    const before = file.subarray(payload.start, last.offset);
    return [before, header, last.bytes.subarray(0, size), file.subarray(behind, payload.end)];
  });
  return Buffer.concat(chunks);
}
