import type { ByteSource } from '../byte-source.ts';
import { QEMU_VM } from './qemu-file-header.ts';

/** The description of the device sections that QEMU appends as JSON, as far as it is of use here. */
export interface Description {
  /** Where its section begins: behind the EOF byte of the sections. */
  readonly offset: number;
  /** The JSON as it is. */
  readonly json: string;
  /** Payload size of a device that is not described field by field; `undefined` for others and unknown ones. */
  sizeOf(device: string, instanceId: number): number | undefined;
}

/** The type byte and a u32 lie before the JSON. */
const LENGTH_END = 5;
/** QEMU's descriptions have some 100 KB; a longer one than this is not looked for. */
const MAX_SIZE = 16 * 1024 * 1024;

/**
 * Finds the description, looking back from the end of the file to `from`: a VMDESCRIPTION byte behind an EOF byte, with
 * a length that reaches exactly to the file's end. `undefined` if there is none (a machine can suppress it; a file can
 * be cut or carry bytes behind it) or if it is not the expected JSON.
 */
export function findDescription(source: ByteSource, from: number): Description | undefined {
  const begin = Math.max(from, source.size - MAX_SIZE);
  const file = Buffer.alloc(source.size - begin);
  if (source.read(file, begin) < file.length) return undefined;
  for (let at = file.length - LENGTH_END; at > 0; at--) {
    if (file[at] !== QEMU_VM.VMDESCRIPTION || file[at - 1] !== QEMU_VM.EOF) continue;
    const start = at + LENGTH_END;
    if (file.readUInt32BE(at + 1) !== file.length - start) continue;
    const json = file.subarray(start).toString();
    const sizes = parseSizes(json);
    return sizes && { offset: begin + at, json, sizeOf: (device, instanceId) => sizes.get(key(device, instanceId)) };
  }
  return undefined;
}

/** A device that is not described field by field, as QEMU describes it. */
export interface PlainDevice {
  readonly device: string;
  readonly instanceId: number;
  readonly size: number;
}

/** The description with more devices at its end; `undefined` if its JSON is not of the form that QEMU's has. */
export function describeToo({ json }: Description, devices: readonly PlainDevice[]): Uint8Array | undefined {
  const end = json.lastIndexOf(']');
  const more = devices.map(({ device: name, instanceId: instance_id, size }) =>
    JSON.stringify({ name, instance_id, size, fields: [{ name: 'data', size, type: 'buffer' }] }),
  );
  const text = `${json.slice(0, end)}, ${more.join(', ')}${json.slice(end)}`;
  const sizes = parseSizes(text);
  const isThere = ({ device, instanceId, size }: PlainDevice): boolean => sizes?.get(key(device, instanceId)) === size;
  if (!devices.every(isThere)) return undefined;
  const bytes = Buffer.from(text);
  const head = Buffer.alloc(LENGTH_END);
  head.writeUInt8(QEMU_VM.VMDESCRIPTION);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

const key = (device: string, instanceId: number): string => `${instanceId} ${device}`;

const isLength = (size: unknown): size is number => Number.isSafeInteger(size) && (size as number) >= 0;

interface DescribedDevice {
  readonly name?: unknown;
  readonly instance_id?: unknown;
  readonly size?: unknown;
}

function parseSizes(json: string): Map<string, number> | undefined {
  let devices: unknown;
  try {
    const parsed = JSON.parse(json) as { devices?: unknown } | null;
    devices = parsed?.devices;
  } catch {
    return undefined;
  }
  if (!Array.isArray(devices)) return undefined;
  const sizes = new Map<string, number>();
  for (const device of devices as (DescribedDevice | null)[]) {
    const { name, instance_id: instanceId, size } = device ?? {};
    if (typeof name !== 'string' || typeof instanceId !== 'number' || !isLength(size)) continue;
    sizes.set(key(name, instanceId), size);
  }
  return sizes;
}
