import { describe, expect, it } from 'vitest';
import { BufferedV1, type Messages, type Place } from '../../src/vfio-user/client/buffered-v1.ts';
import type { V1Device } from '../../src/v1/device.ts';

const AT = 4096;
const LIMITS = { readLimit: 4096, writeLimit: 2048 } as const;

/** A server that notes what is moved of its data section, and by what way. */
class Noting implements V1Device, Messages {
  readonly regionSize = AT + 65_536;
  readonly dataSection = { offset: AT, size: 65_536 };
  readonly mapped = undefined;
  readonly readLimit = LIMITS.readLimit;
  readonly writeLimit = LIMITS.writeLimit;
  readonly section = new Uint8Array(65_536).map((_, n) => n * 7);
  readonly moved: string[] = [];
  size = 0;
  #way = 'file';

  prepare({ region, at, count }: Place): void {
    this.moved.push(`begin ${count} at ${at - AT} of region ${region}`);
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
    device.readAhead();
    expect(server.moved).toEqual(['begin 1000 at 0 of region 9', 'read 1000 at 0 by message']);
    device.read(8, new Uint8Array(8)); // pending_bytes
    device.readAhead();
    const large = shown(LIMITS.readLimit + 1);
    large.device.readAhead();
    expect([server.moved.length, large.server.moved]).toEqual([2, []]);
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
