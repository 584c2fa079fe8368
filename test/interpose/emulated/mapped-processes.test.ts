import { expect, it } from 'vitest';
import { MappedProcesses, ownerOf } from '../../../src/interpose/emulated/mapped-processes.ts';
import { inodeOfOwn } from '../../../src/sys/file.ts';
import { addressOf } from '../../../src/sys/libc.ts';
import { createSharedMemory, mapSharedMemory } from '../../../src/sys/memory.ts';
import { Child, killHard } from '../../../src/vmm/child.ts';
import { poll } from '../../../src/vmm/deadline.ts';
import { outcome } from '../../support/errno.ts';
import { GuardedMemory } from '../../support/self-call.ts';
import { BAD_ADDRESS } from '../../support/user-memory.ts';

const bytes = Uint8Array.of(1, 2, 3, 4);
const at = addressOf(bytes);

it('memory of a process is written to by the number that it has', () => {
  const memory = new GuardedMemory();
  const processes = new MappedProcesses();
  const mine = ownerOf(process.pid);
  const to = memory.put(new Uint8Array(4));
  expect(processes.write(mine, to, at, 4)).toBe(true);
  expect(memory.end(4)).toBeBytes(bytes);
  for (const address of [Number(BAD_ADDRESS), 2 ** 47, 2 ** 53]) {
    expect(outcome(() => processes.write(mine, address, at, 4))).toBe('EFAULT');
  }
  expect(processes.write(mine, to, at, 4)).toBe(true);
  const read = new Uint8Array(4);
  expect(processes.read(mine, to, addressOf(read), 4)).toBe(true);
  expect(read).toBeBytes(bytes);
  expect(outcome(() => processes.read(mine, Number(BAD_ADDRESS), addressOf(read), 4))).toBe('EFAULT');
});

it('memory of a process that has ended is nobody’s, though its id may be', async () => {
  const child = new Child(['sleep', '1000']);
  const theirs = ownerOf(child.pid ?? 0);
  const [known, asked] = [new MappedProcesses(), new MappedProcesses()];
  expect(outcome(() => known.write(theirs, 8, at, 4))).toBe('EFAULT');
  killHard(child.pid ?? 0);
  await child.exited;
  for (const processes of [known, known, asked]) expect(processes.write(theirs, 8, at, 4)).toBe(false);
  expect(asked.write(ownerOf(process.pid), addressOf(bytes), at, 4)).toBe(true);
});

it('memory of a program is nobody’s once its process runs another, whose memory has a number of its own', async () => {
  // the shell waits, at a place that it says, until it is told to become another program
  const child = new Child(['sh', '-c', 'echo ready; read line; exec sh -c "echo again; read line"'], { stdin: 'pipe' });
  await poll(() => (child.stdout.includes('ready') ? true : undefined), 10_000, 'the first program');
  const first = ownerOf(child.pid ?? 0);
  const [known, asked] = [new MappedProcesses(), new MappedProcesses()];
  expect(outcome(() => known.write(first, 8, at, 4))).toBe('EFAULT');
  child.stdin.write('go\n');
  await poll(() => (child.stdout.includes('again') ? true : undefined), 10_000, 'the next program');
  const next = ownerOf(child.pid ?? 0);
  expect(next.process).toBe(first.process);
  expect(next.program).not.toBe(first.program);
  for (const processes of [known, known, asked]) expect(processes.write(first, 8, at, 4)).toBe(false);
  for (const processes of [known, asked]) expect(outcome(() => processes.write(next, 8, at, 4))).toBe('EFAULT');
  killHard(child.pid ?? 0);
  await child.exited;
});

it('memory of a file is written to by a descriptor of whoever has mapped it, as long as that is the same file', () => {
  const processes = new MappedProcesses();
  const file = createSharedMemory('mapped', 8192);
  const owner = {
    process: ownerOf(process.pid).process,
    program: BigInt(inodeOfOwn(file.number)),
    file: file.number + 1,
  };
  const there = mapSharedMemory(file.number, 8192).bytes;
  expect(processes.write(owner, 4096, at, 4)).toBe(true);
  expect(there.subarray(4095, 4101)).toBeBytes(Uint8Array.of(0, 1, 2, 3, 4, 0));
  const read = new Uint8Array(6);
  expect(processes.read(owner, 4095, addressOf(read), 6)).toBe(true);
  expect(read).toBeBytes(Uint8Array.of(0, 1, 2, 3, 4, 0));
  expect(outcome(() => processes.read(owner, 8188, addressOf(read), 6))).toBe('EFAULT'); // the file ends before
  expect(processes.read({ ...owner, program: owner.program + 1n }, 0, addressOf(read), 4)).toBe(false);
  expect(processes.write({ ...owner, program: owner.program + 1n }, 0, at, 4)).toBe(false);
  file.close();
  expect(processes.write(owner, 0, at, 4)).toBe(false);
  expect(there[0]).toBe(0);
});
