import { smallBytes } from './small-bytes.ts';

/**
 * One declaration per C struct: name, size, and for each field its kind and byte offset. Everything else (decoding,
 * encoding, live views, types) follows from it. All fields are little endian, as on every machine VFIO migration runs on.
 */
export type FieldKind = 'u8' | 'u16' | 'u32' | 's32' | 'u64' | 's64' | 'count';
/** The fields of a struct: kind, and byte offset, by name. */
export type Fields = Readonly<Record<string, readonly [kind: FieldKind, offset: number]>>;
/** `count` is a u64 that this program itself wrote and that is known to be a safe integer: a number, not a bigint. */
type ValueOf<K extends FieldKind> = K extends 'u64' | 's64' ? bigint : number;
/** The values of all fields of a struct. */
export type Values<F extends Fields> = { -readonly [K in keyof F]: ValueOf<F[K][0]> };

/** A C struct: its layout, and what reads and writes it. */
export interface Struct<F extends Fields> {
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  readonly fields: F;
  /** Reads every field from `bytes` at `at`. Throws RangeError if the struct does not fit. */
  decode(bytes: Uint8Array, at?: number): Values<F>;
  /** Writes the given fields, all others 0, into `into` at `at` (default: a new buffer of the struct's size). */
  encode(values: Partial<Values<F>>, into?: Uint8Array, at?: number): Uint8Array;
  /** An object whose properties are the fields in `bytes` at `at`: reads and writes go straight to the memory. */
  view(bytes: Uint8Array, at?: number): Values<F>;
}

interface Accessor {
  readonly width: number;
  get(view: DataView, at: number): number | bigint;
  set(view: DataView, at: number, value: never): void;
}

const accessors: Readonly<Record<FieldKind, Accessor>> = {
  u8: { width: 1, get: (v, at) => v.getUint8(at), set: (v, at, x: number) => v.setUint8(at, x) },
  u16: { width: 2, get: (v, at) => v.getUint16(at, true), set: (v, at, x: number) => v.setUint16(at, x, true) },
  u32: { width: 4, get: (v, at) => v.getUint32(at, true), set: (v, at, x: number) => v.setUint32(at, x, true) },
  s32: { width: 4, get: (v, at) => v.getInt32(at, true), set: (v, at, x: number) => v.setInt32(at, x, true) },
  u64: { width: 8, get: (v, at) => v.getBigUint64(at, true), set: (v, at, x: bigint) => v.setBigUint64(at, x, true) },
  s64: { width: 8, get: (v, at) => v.getBigInt64(at, true), set: (v, at, x: bigint) => v.setBigInt64(at, x, true) },
  count: {
    width: 8,
    get: (v, at) => v.getUint32(at + 4, true) * 2 ** 32 + v.getUint32(at, true),
    set: (v, at, x: number) => {
      v.setUint32(at, x % 2 ** 32, true);
      v.setUint32(at + 4, Math.floor(x / 2 ** 32), true);
    },
  },
};

/** Width in bytes of a field kind. */
export function fieldWidth(kind: FieldKind): number {
  return accessors[kind].width;
}

/** Declares a struct. Throws if a field does not fit into `size`, which is a mistake in the declaration. */
export function struct<const F extends Fields>(name: string, size: number, fields: F): Struct<F> {
  const entries = Object.entries(fields).map(([key, [kind, offset]]) => {
    const { width, get, set } = accessors[kind];
    return { key, offset, width, get, set };
  });
  for (const { key, offset, width } of entries) {
    if (offset + width > size) throw new RangeError(`${name}.${key}: ends at ${offset + width}, beyond ${size}`);
  }

  class View {
    readonly #memory: DataView;
    constructor(memory: DataView) {
      this.#memory = memory;
    }
    static {
      for (const { key, offset, get, set } of entries) {
        Object.defineProperty(View.prototype, key, {
          enumerable: true,
          get(this: View) {
            return get(this.#memory, offset);
          },
          set(this: View, value: never) {
            set(this.#memory, offset, value);
          },
        });
      }
    }
  }

  const memoryOf = (bytes: Uint8Array, at: number): DataView => {
    if (at < 0 || at + size > bytes.length) {
      throw new RangeError(`struct ${name}: needs ${size} bytes at ${at}, the buffer has ${bytes.length}`);
    }
    return new DataView(bytes.buffer, bytes.byteOffset + at, size);
  };

  return {
    name,
    size,
    fields,
    decode(bytes, at = 0) {
      const memory = memoryOf(bytes, at);
      const values: Record<string, number | bigint> = {};
      for (const { key, offset, get } of entries) values[key] = get(memory, offset);
      return values as Values<F>;
    },
    encode(values, into = smallBytes(size), at = 0) {
      const memory = memoryOf(into, at);
      into.fill(0, at, at + size);
      for (const { key, offset, set } of entries) {
        const value = values[key];
        if (value !== undefined) set(memory, offset, value as never);
      }
      return into;
    },
    view(bytes, at = 0) {
      return new View(memoryOf(bytes, at)) as unknown as Values<F>;
    },
  };
}
