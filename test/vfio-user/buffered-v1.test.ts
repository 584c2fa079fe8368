import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BufferedV1, type Messages, type Place } from '../../src/vfio-user/client/buffered-v1.ts';
import type { V1Device } from '../../src/v1/device.ts';

const AT = 4096;
const LIMITS = { readLimit: 4096, writeLimit: 2048 } as const;

/** A server that notes what is moved of its data section, and by what way. */
class Noting implements V1Device, Messages {
  regionSize = AT + 65_536;
  readonly dataSection = { offset: AT, size: 65_536 };
  readonly mapped = undefined;
  readonly readLimit = LIMITS.readLimit;
  readonly writeLimit = LIMITS.writeLimit;
  readonly section = new Uint8Array(65_536).map((_, n) => n * 7);
  readonly moved: string[] = [];
  size = 0;
  /** It gives less than it is asked for at once. */
  isShort = false;
  #way = 'file';

  prepare({ region, at, count }: Place): void {
    this.moved.push(`begin ${count} at ${at - AT} of region ${region}`);
  }

  drop(): void {
    this.moved.push('drop');
  }

  take({ at, count }: Place): Uint8Array | undefined {
    if (this.isShort) return undefined;
    this.moved.push(`read ${count} at ${at - AT} by message`);
    return this.section.slice(at - AT, at - AT + count);
  }

  /** Nobody looks at what was given back: there it is something else. */
  giveBack(bytes: Uint8Array): void {
    bytes.fill(0xee);
  }

  byMessage(access: () => void): void {
    this.#way = 'message';
    access();
    this.#way = 'file';
  }

  read(offset: number, into: Uint8Array): void {
    if (offset < AT) {
      const value = offset === 16 ? AT : offset === 24 ? this.size : 1;
      into.fill(0);
      new DataView(into.buffer, into.byteOffset).setUint32(0, value, true);
      return;
    }
    this.moved.push(`read ${into.length} at ${offset - AT} by ${this.#way}`);
    into.set(this.section.subarray(offset - AT, offset - AT + into.length));
  }

  write(offset: number, from: Uint8Array): void {
    if (offset < AT) this.moved.push(`register ${offset}`);
    else this.moved.push(`write ${from.length} at ${offset - AT} by ${this.#way}`);
    if (offset >= AT) this.section.set(from, offset - AT);
  }

  reset(): void {
    this.moved.push('reset');
  }
}

function shown(size: number): { readonly server: Noting; readonly device: BufferedV1 } {
  const server = new Noting();
  server.size = size;
  const device = new BufferedV1(server, 9, server);
  for (const register of [8, 16, 24]) device.read(register, new Uint8Array(8));
  return { server, device };
}

function readAll(device: BufferedV1, size: number, piece: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += piece) device.read(AT + at, bytes.subarray(at, Math.min(size, at + piece)));
  return bytes;
}

describe('a buffer of a v1 server', () => {
  it('is asked for ahead if it fits, and only once it is known and not read', () => {
    const { server, device } = shown(1000);
    device.readAhead();
    expect(readAll(device, 1000, 100)).toBeBytes(server.section.subarray(0, 1000));
    expect(server.moved).toEqual([
      'begin 1000 at 0 of region 9',
      'read 1000 at 0 by message',
      'begin 8 at -4088 of region 9', // pending_bytes: the server is asked for the next one at once
    ]);
    const large = shown(LIMITS.readLimit + 1);
    large.device.readAhead();
    const outside = shown(1000);
    outside.server.regionSize = AT + 999;
    outside.device.readAhead();
    expect([large.server.moved, outside.server.moved]).toEqual([[], []]);
  });

  it('that nobody has taken is not taken for the next one', () => {
    const { server, device } = shown(1000);
    device.readAhead();
    device.read(8, new Uint8Array(8)); // pending_bytes
    expect(server.moved).toEqual(['begin 1000 at 0 of region 9', 'drop']);
  });

  it('that the server gives in pieces is read so', () => {
    const { server, device } = shown(1000);
    server.isShort = true;
    expect(readAll(device, 1000, 100)).toBeBytes(server.section.subarray(0, 1000));
    expect(server.moved).toEqual(['read 1000 at 0 by message']);
  });

  it.each([1, 1000, LIMITS.readLimit])(
    'of %i bytes that fits is read by one message, whatever pieces are asked for',
    (size) => {
      const { server, device } = shown(size);
      expect(readAll(device, size, 100)).toBeBytes(server.section.subarray(0, size));
      expect(server.moved).toEqual([`read ${size} at 0 by message`]);
      device.read(8, new Uint8Array(8)); // pending_bytes: it was taken
      for (const register of [16, 24]) device.read(register, new Uint8Array(8));
      readAll(device, size, size);
      expect(server.moved).toEqual([`read ${size} at 0 by message`, `read ${size} at 0 by message`]);
    },
  );

  it('that does not fit is read from the file, as it is asked for', () => {
    const size = LIMITS.readLimit + 1;
    const { server, device } = shown(size);
    expect(readAll(device, size, 4096)).toBeBytes(server.section.subarray(0, size));
    expect(server.moved).toEqual(['read 4096 at 0 by file', 'read 1 at 4096 by file']);
  });

  it.each([1, 1000, LIMITS.writeLimit])(
    'of %i bytes that fits is written by one message, before its size is told',
    (size) => {
      const { server, device } = shown(0);
      const bytes = new Uint8Array(size).map((_, n) => n * 3);
      for (let at = 0; at < size; at += 100) device.write(AT + at, bytes.subarray(at, at + 100));
      expect(server.moved).toEqual([]);
      device.write(24, new Uint8Array(8));
      expect(server.moved).toEqual([`write ${size} at 0 by message`, 'register 24']);
      expect(server.section.subarray(0, size)).toBeBytes(bytes);
    },
  );

  it('that does not fit is written to the file, all of it', () => {
    const { server, device } = shown(0);
    const bytes = new Uint8Array(LIMITS.writeLimit + 500).map((_, n) => n * 5);
    for (let at = 0; at < bytes.length; at += 1000) device.write(AT + at, bytes.subarray(at, at + 1000));
    device.write(24, new Uint8Array(8));
    expect(server.moved).toEqual(['write 2000 at 0 by file', 'write 548 at 2000 by file', 'register 24']);
    expect(server.section.subarray(0, bytes.length)).toBeBytes(bytes);
    device.write(AT, bytes.subarray(0, 10)); // the next one fits again
    device.write(24, new Uint8Array(8));
    expect(server.moved.slice(3)).toEqual(['write 10 at 0 by message', 'register 24']);
  });

  it('that was written in part is forgotten by a reset', () => {
    const { server, device } = shown(0);
    device.write(AT, new Uint8Array(10));
    device.reset();
    device.write(24, new Uint8Array(8));
    expect(server.moved).toEqual(['reset', 'register 24']);
  });
});

/**
 * A v1 server with buffers to give, as the protocol has it: a read of pending_bytes acknowledges the buffer that data_offset has shown, which must
 * have been read to its end by then.
 */
class Giving implements V1Device, Messages {
  readonly regionSize = AT + 65_536;
  readonly dataSection = { offset: AT, size: 65_536 };
  readonly mapped = undefined;
  readonly readLimit = LIMITS.readLimit;
  readonly writeLimit = LIMITS.writeLimit;
  readonly #buffers: readonly Uint8Array[];
  #place = -1;
  #isShown = false;
  #taken = 0;
  #begun: { readonly read: Place; readonly bytes: Uint8Array } | undefined;

  constructor(buffers: readonly Uint8Array[]) {
    this.#buffers = buffers;
  }

  get #buffer(): Uint8Array {
    return this.#buffers[this.#place] ?? new Uint8Array(0);
  }

  #register(at: number): bigint {
    if (at === 8) {
      if (this.#isShown && this.#taken < this.#buffer.length) throw new Error('acknowledged, and not read');
      this.#isShown = false;
      return BigInt(this.#buffers.length - 1 - this.#place);
    }
    if (at === 16 && !this.#isShown) {
      this.#place += 1;
      this.#isShown = true;
      this.#taken = 0;
    }
    if (!this.#isShown || this.#place >= this.#buffers.length) throw new Error(`no buffer is shown: ${at}`);
    return BigInt(at === 16 ? this.#at : this.#buffer.length);
  }

  /** Buffers are not always in one place. */
  get #at(): number {
    return AT + (this.#place % 3) * 8192;
  }

  #answer({ at, count }: Place): Uint8Array {
    if (at < AT) return new Uint8Array(BigUint64Array.of(this.#register(at)).buffer);
    const from = at - this.#at;
    if (!this.#isShown || from !== this.#taken) throw new Error(`read of ${count} at ${from}`);
    this.#taken += count;
    return this.#buffer.slice(from, from + count);
  }

  prepare(read: Place): void {
    const isBegun = this.#begun?.read.at === read.at && this.#begun.read.count === read.count;
    if (!isBegun) this.#begun = { read, bytes: this.#answer(read) };
  }

  drop(): void {
    this.#begun = undefined;
  }

  take(read: Place): Uint8Array {
    const begun = this.#begun;
    if (begun?.read.at !== read.at || begun.read.count !== read.count) return this.#answer(read);
    this.#begun = undefined;
    return begun.bytes;
  }

  giveBack(bytes: Uint8Array): void {
    bytes.fill(0xee);
  }

  byMessage(access: () => void): void {
    access();
  }

  read(at: number, into: Uint8Array): void {
    into.set(this.take({ region: 9, at, count: into.length }));
  }

  write(): void {}

  reset(): void {}
}

describe('the buffers of a v1 server that is asked ahead', () => {
  it('are given in order and whole, however often the registers are read and whenever there is time', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: LIMITS.readLimit + 100 }), { maxLength: 8 });
    const choices = fc.infiniteStream(fc.integer({ min: 0, max: 7 }));
    fc.assert(
      fc.property(sizes, choices, (lengths, choice) => {
        const buffers = lengths.map((length, n) => new Uint8Array(length).map((_, at) => n * 31 + at * 7));
        const server = new Giving(buffers);
        const tested = new BufferedV1(server, 9, server);
        const next = (): number => choice.next().value ?? 0;
        const maybe = (act: () => void): void => void (next() < 3 && act());
        const register = (at: number): number => {
          const value = new Uint8Array(8);
          tested.read(at, value);
          return Number(new DataView(value.buffer).getBigUint64(0, true));
        };
        const again = (at: number, value: number): void => maybe(() => expect(register(at)).toBe(value));
        for (const buffer of buffers) {
          const pending = register(8);
          expect(pending).toBeGreaterThan(0);
          again(8, pending);
          const at = register(16);
          maybe(tested.readAhead);
          const size = register(24);
          expect(size).toBe(buffer.length);
          maybe(tested.readAhead);
          again(16, at);
          const taken = new Uint8Array(size);
          for (let done = 0; done < size;) {
            const piece = Math.min(size - done, 1 + next() * 700);
            tested.read(at + done, taken.subarray(done, done + piece));
            done += piece;
            maybe(tested.readAhead);
            again(16, at);
            again(24, size);
          }
          expect(taken).toBeBytes(buffer);
        }
        expect(register(8)).toBe(0);
        maybe(tested.readAhead);
        expect(register(8)).toBe(0);
      }),
    );
  });
});
