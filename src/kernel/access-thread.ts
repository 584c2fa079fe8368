import { Worker } from 'node:worker_threads';
import { POLLIN } from '../abi/fcntl.ts';
import { struct } from '../abi/struct.ts';
import type { ReadyFd } from '../error.ts';
import { createEventFd, duplicateOwn, type OwnedFd } from '../sys/fd.ts';
import { addressOf, trySyscall } from '../sys/libc.ts';

/** A pread or pwrite of at most `MOST` bytes. */
export interface Access {
  readonly call: 'read' | 'write';
  /** At most `MAX_SAFE_INTEGER`. */
  readonly position: number;
  /** What is written; of a read its length counts. */
  readonly bytes: Uint8Array;
}

/** What an access has come to. */
export interface Accessed {
  /** Bytes moved, or a negative errno. */
  readonly result: number;
  readonly bytes: Uint8Array;
  /** How long the driver took, in milliseconds. */
  readonly took: number;
}

/** The longest access, in bytes: a register. */
export const MOST = 8;

/** Makes accesses one after the other, each while its user does something else. */
export interface Accessor {
  /** Is readable once the access has ended. */
  readonly readiness: ReadyFd;
  /** Begins one on an open file, of which it keeps a descriptor until it has ended. Only if none is under way. */
  begin(fd: number, access: Access): void;
  /** What the access that was begun last has come to, once; `undefined` as long as it is under way, and if there is none. */
  end(): Accessed | undefined;
}

/** What the two threads share. */
const shared_access = struct('shared_access', 48, {
  /** Counts accesses, for the thread to wait for the next. */
  begun: ['u32', 0],
  fd: ['s32', 4],
  writes: ['u32', 8],
  length: ['u32', 12],
  result: ['s32', 16],
  position: ['count', 24],
  /** Microseconds. */
  took: ['count', 32],
  /** `MOST` bytes are at 40. */
});
const BYTES = 40;

/**
 * The thread's program, as text: a supervisor's program has no file (supervisor-program.ts). It blocks in Node's own pread and pwrite, so
 * that it needs no library. A failure of Node's has the errno as a negative number.
 */
const PROGRAM = `
const { memory, wake } = require('node:worker_threads').workerData;
const { readSync, writeSync } = require('node:fs');
const words = new Int32Array(memory, 0, 5);
const view = new DataView(memory);
const shared = new Uint8Array(memory, ${BYTES}, ${MOST});
const bytes = new Uint8Array(${MOST});
const one = new Uint8Array(new BigUint64Array([1n]).buffer);
for (let turn = 1; ; turn += 1) {
  while (Atomics.load(words, 0) < turn) Atomics.wait(words, 0, turn - 1);
  const [, fd, writes, length] = words;
  const position = Number(view.getBigUint64(24, true));
  bytes.set(shared);
  const begin = process.hrtime.bigint();
  let result;
  try {
    result = (writes ? writeSync : readSync)(fd, bytes, 0, length, position);
  } catch (error) {
    result = typeof error.errno === 'number' ? error.errno : -5;
  }
  view.setBigUint64(32, (process.hrtime.bigint() - begin) / 1000n, true);
  shared.set(bytes);
  words[4] = result;
  writeSync(wake, one);
}`;

/** A thread that waits for a driver, so that its process need not. It costs nothing until it is needed, and then some MiB. */
export class AccessThread implements Accessor {
  readonly readiness: ReadyFd;
  readonly #memory = new SharedArrayBuffer(shared_access.size);
  readonly #begun = new Int32Array(this.#memory, 0, 1);
  readonly #bytes = new Uint8Array(this.#memory, BYTES, MOST);
  readonly #shared = shared_access.view(new Uint8Array(this.#memory));
  readonly #wake = createEventFd();
  readonly #count = new Uint8Array(8);
  // SAFETY: this object references the memory, and waits for the call
  readonly #countAt = addressOf(this.#count);
  #file: OwnedFd | undefined;

  constructor() {
    this.readiness = { fd: this.#wake.number, events: POLLIN };
    const workerData = { memory: this.#memory, wake: this.#wake.number };
    new Worker(PROGRAM, { eval: true, execArgv: [], workerData, trackUnmanagedFds: false }).unref();
  }

  begin(fd: number, { call, position, bytes }: Access): void {
    this.#file = duplicateOwn(fd);
    this.#bytes.set(bytes);
    Object.assign(this.#shared, {
      fd: this.#file.number,
      writes: call === 'write' ? 1 : 0,
      length: bytes.length,
      position,
    });
    Atomics.add(this.#begun, 0, 1);
    Atomics.notify(this.#begun, 0);
  }

  end(): Accessed | undefined {
    const file = this.#file;
    if (file === undefined || trySyscall('read', this.#wake.number, this.#countAt, this.#count.length) < 0)
      return undefined;
    const { result, took, length } = this.#shared;
    this.#file = undefined;
    file.close();
    return { result, bytes: this.#bytes.slice(0, length), took: took / 1000 };
  }
}
