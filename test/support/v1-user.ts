import type { V1Device } from '../../src/v1/device.ts';
import { isV1State, v1StateName } from '../../src/v1/states.ts';

/** `struct vfio_device_migration_info`, written down once more (linux/vfio.h, 5.8). */
export const REGISTERS = {
  device_state: { offset: 0, width: 4 },
  reserved: { offset: 4, width: 4 },
  pending_bytes: { offset: 8, width: 8 },
  data_offset: { offset: 16, width: 8 },
  data_size: { offset: 24, width: 8 },
} as const;
export type RegisterName = keyof typeof REGISTERS;

/** A device_state for people: its name and its number. */
export function v1StateText(value: number): string {
  return isV1State(value) ? `${v1StateName(value)} (${value})` : `${value}, which is no state`;
}

export function readRegister(device: V1Device, name: RegisterName): number {
  const { offset, width } = REGISTERS[name];
  const bytes = new Uint8Array(width);
  device.read(offset, bytes);
  return Number(littleEndian(bytes));
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => value * 256n + BigInt(byte), 0n);
}

export function writeRegister(device: V1Device, name: RegisterName, value: number | bigint): void {
  const { offset, width } = REGISTERS[name];
  const bytes = new Uint8Array(width);
  for (let i = 0, rest = BigInt(value); i < width; i += 1, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  device.write(offset, bytes);
}

/** A user of a v1 region that does each step of the protocol by itself. */
export function v1User(device: V1Device): {
  state(): number;
  setState(value: number): void;
  pending(): number;
  offset(): number;
  size(): number;
  /** Steps b to d: data_offset, data_size, and a copy of the data. */
  buffer(): Uint8Array;
  /** Step f and then b to d, until pending_bytes is 0. */
  drain(): Uint8Array[];
  /** One transaction of a resuming loop. */
  load(bytes: Uint8Array): void;
} {
  const user = {
    state: () => readRegister(device, 'device_state'),
    setState: (value: number) => writeRegister(device, 'device_state', value),
    pending: () => readRegister(device, 'pending_bytes'),
    offset: () => readRegister(device, 'data_offset'),
    size() {
      const size = readRegister(device, 'data_size');
      device.readAhead?.(); // as a supervisor does that has nothing else to do
      return size;
    },
    buffer() {
      const at = user.offset();
      const bytes = new Uint8Array(user.size());
      device.read(at, bytes);
      return bytes;
    },
    drain() {
      const buffers: Uint8Array[] = [];
      while (user.pending() > 0) {
        const buffer = user.buffer();
        if (buffer.length === 0) break;
        buffers.push(buffer);
      }
      return buffers;
    },
    load(bytes: Uint8Array) {
      device.write(user.offset(), bytes);
      writeRegister(device, 'data_size', bytes.length);
    },
  };
  return user;
}
