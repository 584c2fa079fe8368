import { errnoName } from '../../src/abi/errno.ts';
import type { SyscallName } from '../../src/abi/syscalls.ts';
import { arch } from '../../src/sys/libc.ts';
import { within } from '../../src/vmm/deadline.ts';
import type { ShimRun } from './shim-run.ts';

/** How a call of the puppet ended. */
export interface Outcome {
  readonly value: bigint;
  /** `OK`, an errno's name, or `#N` for one that has none. */
  readonly errno: string;
  readonly bytes: Uint8Array;
}

/** A number, or memory of the puppet's: `$NAME`, `$NAME+OFFSET`; `$` is the value of the operation before. */
export type Argument = number | bigint | `$${string}`;

/** What a puppet runs in. */
export interface PuppetHost {
  write(text: string): void;
  onLine(listener: (line: string) => void): void;
  describe(): string;
}

/** The C program puppet.c, which is run under `vfio-shim run` for most: makes whatever system calls it is told to. */
export class Puppet<Host extends PuppetHost = ShimRun> {
  readonly run: Host;
  readonly #waiting = new Map<string, (outcome: Outcome) => void>();
  #tags = 0;

  constructor(run: Host) {
    this.run = run;
    run.onLine((line) => {
      const [tag = '', value = '', errno = '', hex = ''] = line.split(' ');
      const resolve = this.#waiting.get(tag);
      if (resolve === undefined) return;
      this.#waiting.delete(tag);
      resolve({
        value: BigInt(value),
        errno: errno === '0' ? 'OK' : (errnoName(Number(errno)) ?? `#${errno}`),
        bytes: new Uint8Array(Buffer.from(hex, 'hex')),
      });
    });
  }

  /** Sends a script to a thread; settles when it has been answered, which it may never be. */
  send(script: string, thread = 0): Promise<Outcome> {
    const tag = `t${(this.#tags += 1)}`;
    const answer = new Promise<Outcome>((resolve) => this.#waiting.set(tag, resolve));
    this.run.write(`${tag} ${thread} ${script}\n`);
    return answer;
  }

  /** As send(), and the answer must come in time. */
  async script(script: string, thread = 0, ms = 20_000): Promise<Outcome> {
    return within(this.send(script, thread), ms, () => `${script}\n${this.run.describe()}`);
  }

  async call(name: SyscallName | number, args: readonly Argument[], thread = 0): Promise<Outcome> {
    return this.script(callText(name, args), thread);
  }

  /** New memory of the puppet's, at the end of a page, with inaccessible memory behind it. */
  async memory(name: string, size: number): Promise<bigint> {
    return (await this.script(`new ${name} ${size}`)).value;
  }

  /** The main thread, and all that it starts from now on, goes on as a user without any right, as `qemu -runas` does. */
  async dropPrivileges(): Promise<void> {
    for (const [nr, ...args] of DROP) {
      const { errno } = await this.call(nr, args);
      if (errno !== 'OK') throw new Error(`system call ${nr}: ${errno}`);
    }
  }

  async put(name: string, bytes: Uint8Array, offset = 0): Promise<void> {
    await this.script(`put ${name} ${offset} ${Buffer.from(bytes).toString('hex')}`);
  }

  async get(name: string, length: number, offset = 0): Promise<Uint8Array> {
    return (await this.script(`get ${name} ${offset} ${length}`)).bytes;
  }
}

const NOBODY = 65534;
const [SETGROUPS, SETRESGID, SETRESUID] = arch.name === 'x64' ? [116, 119, 117] : [159, 149, 147];
const DROP: readonly [nr: number, ...args: number[]][] = [
  [SETGROUPS, 0, 0],
  [SETRESGID, NOBODY, NOBODY, NOBODY],
  [SETRESUID, NOBODY, NOBODY, NOBODY],
];

/** A system call as an operation of a script. */
export function callText(name: SyscallName | number, args: readonly Argument[]): string {
  return `call ${typeof name === 'number' ? name : arch.syscalls[name]} ${args.join(' ')}`;
}
