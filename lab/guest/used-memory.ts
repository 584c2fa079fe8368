import { randomFillSync } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const MiB = 2 ** 20;
/** What the firmware uses at both ends of the memory begins as zeros. */
const FIRMWARE = 16 * MiB;

/** Writes the memory of a VM that has been in use, all of it incompressible but for what the firmware needs, into a file. */
export function writeUsedMemory(file: string, bytes: number): void {
  const fd = openSync(file, 'w');
  ftruncateSync(fd, bytes);
  const block = new Uint8Array(MiB);
  for (let at = FIRMWARE; at < bytes - FIRMWARE; at += MiB) writeSync(fd, randomFillSync(block), 0, MiB, at);
  closeSync(fd);
}

/** QEMU's arguments for memory of this size; the VM has its own copy of what the file holds, or zeros. */
export function memoryArgs(bytes: number, file?: string): string[] {
  const size = `id=pc.ram,size=${bytes}`;
  const backend = file === undefined ? `memory-backend-ram,${size}` : `memory-backend-file,${size},mem-path=${file}`;
  return ['-m', `${bytes / MiB}M`, '-object', backend, '-machine', 'memory-backend=pc.ram'];
}
