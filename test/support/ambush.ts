import { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { compiled } from './compiler.ts';

/** A process that lies in wait for another one's system calls: see test/interpose/c/ambush.c. */
export class Ambush {
  readonly #child: Child;
  readonly #lines: string[] = [];

  constructor(args: readonly string[]) {
    const options = { stdin: 'pipe', onOutput: (line: string) => void this.#lines.push(line) } as const;
    this.#child = new Child([compiled('ambush'), ...args], options);
    void this.#child.exited.then(() => this.#lines.push(this.#child.fate ?? ''));
  }

  /** What it says next: `ready`, or `held NR`; at last how it has ended. */
  says(): Promise<string> {
    return poll(
      () => this.#lines.shift(),
      20_000,
      () => `${this.#child.command.join(' ')} to say something`,
    );
  }

  /** Lets the process that is held go on. */
  release(): void {
    this.#child.stdin.end();
  }
}

/** Settles when the process is watched. `what` is an ioctl's number, or a count and system calls. */
export async function ambush(pid: number, when: string, ...what: readonly number[]): Promise<Ambush> {
  const trap = new Ambush([pid, when, ...what].map(String));
  const said = await trap.says();
  if (said !== 'ready') throw new Error(`an ambush on process ${pid}: ${said}`);
  return trap;
}
