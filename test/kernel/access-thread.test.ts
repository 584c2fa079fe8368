import { writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { errnoNumber } from '../../src/abi/errno.ts';
import { AccessThread, type Access, type Accessed } from '../../src/kernel/access-thread.ts';
import { duplicateOwn } from '../../src/sys/fd.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { PollSet } from '../../src/sys/poll.ts';
import { noise } from '../support/bytes.ts';

/** Makes an access, and blocks as a supervisor does until it is told that it has ended. */
function carriedOut(thread: AccessThread, fd: number, access: Access): Accessed {
  const poll = new PollSet(1);
  thread.begin(fd, access);
  for (;;) {
    const ended = thread.end();
    if (ended !== undefined) return ended;
    poll.set(0, thread.readiness.fd, thread.readiness.events);
    poll.wait(1);
  }
}

describe('a thread that makes accesses', () => {
  const thread = new AccessThread();

  it('reads and writes at places of a file while its process is blocked, one after the other', () => {
    using file = createSharedMemory('test', 4096);
    expect(thread.end(), 'nothing was begun').toBeUndefined();
    for (let n = 0; n < 20; n += 1) {
      const bytes = noise(8, n);
      const at = n * 64;
      expect(carriedOut(thread, file.number, { call: 'write', position: at, bytes }).result).toBe(8);
      const read = carriedOut(thread, file.number, { call: 'read', position: at, bytes: new Uint8Array(8) });
      expect(read.result).toBe(8);
      expect(read.bytes).toBeBytes(bytes);
      expect(thread.end(), 'it is told once').toBeUndefined();
    }
    expect(carriedOut(thread, file.number, { call: 'read', position: 4092, bytes: new Uint8Array(8) }).result).toBe(4);
  });

  it('reaches places above 4 GiB, as those of VFIO regions are', () => {
    const position = 9 * 2 ** 40 + 16;
    using file = createSharedMemory('test', position + 8);
    writeSync(file.number, noise(8, 1), 0, 8, position);
    expect(carriedOut(thread, file.number, { call: 'read', position, bytes: new Uint8Array(8) }).bytes).toBeBytes(
      noise(8, 1),
    );
  });

  it('tells a failure as the kernel does, and the next access is none', () => {
    using file = createSharedMemory('test', 4096);
    const read: Access = { call: 'read', position: 0, bytes: new Uint8Array(8) };
    expect(carriedOut(thread, 0, { ...read, position: -1 }).result).toBeLessThan(0);
    expect(carriedOut(thread, thread.readiness.fd, read).result).toBe(-errnoNumber('ESPIPE'));
    expect(carriedOut(thread, file.number, read).result).toBe(8);
  });

  it('keeps the file for as long as it takes, whoever closes it', () => {
    using file = createSharedMemory('test', 4096);
    writeSync(file.number, noise(8, 7), 0, 8, 0);
    const own = duplicateOwn(file.number);
    thread.begin(own.number, { call: 'read', position: 0, bytes: new Uint8Array(8) });
    own.close();
    let ended: Accessed | undefined;
    while (ended === undefined) ended = thread.end();
    expect(ended.bytes).toBeBytes(noise(8, 7));
  });
});
