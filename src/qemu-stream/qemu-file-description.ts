import { QEMU_VM } from './qemu-file-header.ts';

/** The description of the device sections that QEMU appends as JSON, as far as it is of use here. */
export interface Description {
  /** Where its section begins: behind the EOF byte of the sections. */
  readonly offset: number;
  /** Payload size of a device that is not described field by field; `undefined` for others and unknown ones. */
  sizeOf(device: string, instanceId: number): number | undefined;
}

/**
 * Finds the description, looking back from the end of the file to `from`: a VMDESCRIPTION byte behind an EOF byte, with
 * a length that reaches exactly to the file's end. `undefined` if there is none (a machine can suppress it; a file can
 * be cut or carry bytes behind it) or if it is not the expected JSON.
 */
export function findDescription(file: Uint8Array, from: number): Description | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  for (let at = file.length - LENGTH_END; at > from; at--) {
    if (file[at] !== QEMU_VM.VMDESCRIPTION || file[at - 1] !== QEMU_VM.EOF) continue;
    const start = at + LENGTH_END;
    if (view.getUint32(at + 1) !== file.length - start) continue;
    const sizes = parseSizes(file.subarray(start));
    return sizes && { offset: at, sizeOf: (device, instanceId) => sizes.get(key(device, instanceId)) };
  }
  return undefined;
}

/** The type byte and a u32 lie before the JSON. */
const LENGTH_END = 5;

const key = (device: string, instanceId: number): string => `${instanceId} ${device}`;

const isLength = (size: unknown): size is number => Number.isSafeInteger(size) && (size as number) >= 0;

interface DescribedDevice {
  readonly name?: unknown;
  readonly instance_id?: unknown;
  readonly size?: unknown;
}

function parseSizes(json: Uint8Array): Map<string, number> | undefined {
  let devices: unknown;
  try {
    const parsed = JSON.parse(new TextDecoder().decode(json)) as { devices?: unknown } | null;
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
