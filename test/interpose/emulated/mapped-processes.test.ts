import { expect, it } from 'vitest';
import { MappedProcesses } from '../../../src/interpose/emulated/mapped-processes.ts';
import { addressOf } from '../../../src/sys/libc.ts';
import { identityOf } from '../../../src/sys/pidfd.ts';
import { Child, killHard } from '../../../src/vmm/child.ts';
import { outcome } from '../../support/errno.ts';
import { GuardedMemory } from '../../support/self-call.ts';
import { BAD_ADDRESS } from '../../support/user-memory.ts';

const bytes = Uint8Array.of(1, 2, 3, 4);
const at = addressOf(bytes);

it('memory of a process is written to by the number that it has', () => {
  const memory = new GuardedMemory();
  const processes = new MappedProcesses();
  const mine = identityOf(process.pid) ?? 0n;
  const to = memory.put(new Uint8Array(4));
  expect(processes.write(mine, to, at, 4)).toBe(true);
  expect(memory.end(4)).toBeBytes(bytes);
  for (const address of [Number(BAD_ADDRESS), 2 ** 47, 2 ** 53]) {
    expect(outcome(() => processes.write(mine, address, at, 4))).toBe('EFAULT');
  }
  expect(processes.write(mine, to, at, 4)).toBe(true);
});

it('memory of a process that has ended is nobody’s, though its id may be', async () => {
  const child = new Child(['sleep', '1000']);
  const theirs = identityOf(child.pid ?? 0) ?? 0n;
  const [known, asked] = [new MappedProcesses(), new MappedProcesses()];
  expect(outcome(() => known.write(theirs, 8, at, 4))).toBe('EFAULT');
  killHard(child.pid ?? 0);
  await child.exited;
  for (const processes of [known, known, asked]) expect(processes.write(theirs, 8, at, 4)).toBe(false);
  expect(asked.write(identityOf(process.pid) ?? 0n, addressOf(bytes), at, 4)).toBe(true);
});
