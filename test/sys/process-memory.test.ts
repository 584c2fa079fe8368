import { describe, expect, it } from 'vitest';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ } from '../../src/abi/mman.ts';
import { addressOf, PAGE_SIZE, syscall } from '../../src/sys/libc.ts';
import {
  proveWritable,
  readProcessMemory,
  readProcessMemoryTo,
  readProcessString,
  writeProcessMemory,
  writeProcessMemoryFrom,
} from '../../src/sys/process-memory.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { GuardedMemory } from '../support/self-call.ts';
import { FILLER } from '../support/user-memory.ts';

const { pid } = process;
const memory = new GuardedMemory(3);
const end = memory.address + memory.bytes.length;
const BAD = [0, 8, end, 2 ** 47, 2 ** 63, Number.POSITIVE_INFINITY, Number.NaN, -1, 0.5];

describe('readProcessMemory and writeProcessMemory', () => {
  it('copy exactly what they are asked to, up to the last byte', () => {
    const at = memory.put(noise(5000));
    const bytes = new Uint8Array(5000);
    readProcessMemory(pid, at, bytes);
    expect(bytes).toEqual(noise(5000));
    writeProcessMemory(pid, at + 100, noise(4900, 2));
    expect(memory.end(4900)).toEqual(noise(4900, 2));
    readProcessMemoryTo(pid, end - 3, addressOf(bytes) + 10, 3);
    expect(bytes.subarray(9, 14)).toEqual(
      new Uint8Array([...noise(5000).subarray(9, 10), ...noise(4900, 2).subarray(-3), ...noise(5000).subarray(13, 14)]),
    );
    writeProcessMemoryFrom(pid, end - 1, addressOf(bytes), 1);
    expect(memory.bytes.at(-1)).toBe(bytes[0]);
  });

  it('say EFAULT of memory that is not there, or ends', () => {
    const bytes = new Uint8Array(16);
    for (const address of [...BAD, end - 15]) {
      expect(
        outcome(() => readProcessMemory(pid, address, bytes)),
        String(address),
      ).toBe('EFAULT');
      expect(
        outcome(() => writeProcessMemory(pid, address, bytes)),
        String(address),
      ).toBe('EFAULT');
    }
    expect(outcome(() => readProcessMemory(0x7fff_fff0, memory.address, bytes))).toBe('EFAULT');
  });

  it('touch nothing where there is nothing to copy', () => {
    for (const address of BAD) {
      expect(outcome(() => readProcessMemory(pid, address, new Uint8Array(0)))).toBe('OK');
      expect(outcome(() => writeProcessMemoryFrom(pid, address, 0, 0))).toBe('OK');
    }
  });
});

describe('proveWritable', () => {
  const LENGTH = 2 * PAGE_SIZE + 808;

  it('proves each page, and changes nothing', () => {
    const at = memory.put(noise(LENGTH));
    for (const length of [0, 1, 2, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, LENGTH]) {
      proveWritable(pid, end - length, length);
      proveWritable(pid, at, length);
    }
    expect(memory.end(LENGTH)).toEqual(noise(LENGTH));
  });

  it('says EFAULT of what is not there, is only to be read, or ends', () => {
    for (const address of BAD) expect(outcome(() => proveWritable(pid, address, 1))).toBe('EFAULT');
    expect(outcome(() => proveWritable(pid, end - 5000, 5001))).toBe('EFAULT');
    expect(outcome(() => proveWritable(pid, 4096, 2 ** 53))).toBe('EFAULT');
    const constant = syscall('memory', 'mmap', 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect(outcome(() => proveWritable(pid, constant, 1))).toBe('EFAULT');
    syscall('memory', 'munmap', constant, 4096);
  });
});

describe('readProcessString', () => {
  const read = (text: string, limit = 4096): string | undefined =>
    readProcessString(pid, memory.put(Buffer.from(text, 'latin1')), limit);

  it('reads to the zero, and no page behind it', () => {
    expect(read('\0')).toBe('');
    expect(read('/dev/vfio/vfio\0')).toBe('/dev/vfio/vfio');
    expect(read('short\0and more')).toBe('short');
    for (const length of [255, 256, 257, 4090, 4095]) expect(read(`${'x'.repeat(length)}\0`)).toBe('x'.repeat(length));
    expect(read('\u{e4}\u{ff}\0')).toBe('\u{e4}\u{ff}');
  });

  it('knows no string without an end, within the limit or in memory', () => {
    expect(read('not ended')).toBeUndefined();
    expect(read(`${'x'.repeat(4096)}\0`)).toBeUndefined();
    expect(read('abc\0', 3)).toBeUndefined();
    expect(read('abc\0', 4)).toBe('abc');
    for (const address of BAD) expect(readProcessString(pid, address, 4096), String(address)).toBeUndefined();
    memory.put(new Uint8Array(0));
    expect(memory.bytes[0]).toBe(FILLER);
    expect(readProcessString(pid, memory.address, 4096)).toBeUndefined();
  });
});
