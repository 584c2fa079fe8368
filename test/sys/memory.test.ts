import { constants } from 'node:buffer';
import { fstatSync, readFileSync, writeSync } from 'node:fs';
import { expect, it } from 'vitest';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../src/abi/fcntl.ts';
import { inPages, PAGE_SIZE, trySyscall } from '../../src/sys/libc.ts';
import { createSharedMemory, mapSharedMemory } from '../../src/sys/memory.ts';
import { outcome } from '../support/errno.ts';

it('PAGE_SIZE is what the kernel maps by, and says that it does', () => {
  const [, kilobytes] = /^MMUPageSize: +(\d+) kB$/m.exec(readFileSync('/proc/self/smaps', 'latin1')) ?? [];
  expect(PAGE_SIZE).toBe(Number(kilobytes) * 1024);
  expect([0, 1, PAGE_SIZE, PAGE_SIZE + 1].map(inPages)).toEqual([0, PAGE_SIZE, PAGE_SIZE, 2 * PAGE_SIZE]);
  using file = createSharedMemory('test', 2 * PAGE_SIZE);
  expect(outcome(() => mapSharedMemory(file.number, 1, PAGE_SIZE / 2))).toBe('EINVAL');
  expect(mapSharedMemory(file.number, 1, PAGE_SIZE).bytes).toHaveLength(1);
});

it('createSharedMemory makes zeros of a size that nobody can change', () => {
  using file = createSharedMemory('test', 8192);
  const fd = file.number;
  expect(fstatSync(fd).size).toBe(8192);
  expect(trySyscall('fcntl', fd, F_GET_SEALS)).toBe(F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  expect(trySyscall('ftruncate', fd, 4096)).toBe(-1);
  expect(trySyscall('ftruncate', fd, 16384)).toBe(-1);
  expect(trySyscall('fcntl', fd, F_ADD_SEALS, F_SEAL_WRITE)).toBe(-1);
  expect(() => writeSync(fd, 'x', 8192)).toThrow(/EPERM/);
});

it('mapSharedMemory shows the file, at an offset too, and outlives its descriptor', () => {
  const file = createSharedMemory('test', 3 * PAGE_SIZE);
  const whole = mapSharedMemory(file.number, 3 * PAGE_SIZE);
  const last = mapSharedMemory(file.number, PAGE_SIZE, 2 * PAGE_SIZE);
  last.bytes[5] = 77;
  expect(whole.bytes[2 * PAGE_SIZE + 5]).toBe(77);
  expect(whole.bytes.length).toBe(3 * PAGE_SIZE);
  file.close();
  whole.bytes[2 * PAGE_SIZE + 5] = 78;
  expect(last.bytes[5]).toBe(78);
});

it('mapSharedMemory says why it cannot', () => {
  using file = createSharedMemory('test', 4096);
  const { number } = file;
  expect(outcome(() => mapSharedMemory(number, 4096, 100))).toBe('EINVAL');
  expect(outcome(() => mapSharedMemory(-1, 4096))).toBe('EBADF');
  // V8 ends the process that asks it for more
  expect(outcome(() => mapSharedMemory(number, constants.MAX_LENGTH + 1))).toBe('ENOMEM');
});
