import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { within } from '../../src/vmm/deadline.ts';
import { compiled } from './compiler.ts';

/** A process that lies in wait for another one's system calls: see test/interpose/c/ambush.c. */
export class Ambush {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #words: string;

  constructor(args: readonly string[]) {
    this.#words = `ambush ${args.join(' ')}`;
    this.#process = spawn(compiled('ambush'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#process.stdout ?? process.stdin })[Symbol.asyncIterator]();
  }

  /** What it says next: `ready`, or `held NR`. */
  async says(): Promise<string> {
    const line = await within(this.#lines.next(), 20_000, () => `${this.#words} says nothing`);
    return line.done === true ? 'ended' : line.value;
  }

  /** Lets the process that is held go on. */
  release(): void {
    this.#process.stdin?.end();
  }
}

/** Settles when the process is watched. `what` is an ioctl's number, or a count and system calls. */
export async function ambush(pid: number, when: string, ...what: readonly number[]): Promise<Ambush> {
  const trap = new Ambush([pid, when, ...what].map(String));
  const said = await trap.says();
  if (said !== 'ready') throw new Error(`an ambush on process ${pid}: ${said}`);
  return trap;
}
